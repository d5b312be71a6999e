-- SPDX-License-Identifier: MIT
-- How fast event streams are read: prints `events`, `line` and `bytes`, in MB a second.

local sse = require "sluice.sse"

local SECONDS <const> = 0.3

-- Megabytes a second of processor time, feeding the same block again and again.
local function speed(block, make_reader)
  local reader, fed, from = make_reader(), 0, os.clock()
  local took
  repeat
    for _ = 1, 20 do assert(reader:feed(block)) end
    fed, took = fed + 20 * #block, os.clock() - from
  until took > SECONDS
  return fed / took / 1e6
end

-- The same for one line of this many bytes, fed byte by byte.
local function speed_of_line(size)
  local from = os.clock()
  local reader = sse.reader()
  for _ = 1, size do reader:feed "x" end
  return size / (os.clock() - from) / 1e6
end

local event <const> = "data: " .. ("x"):rep(192) .. "\n\n"
print("events " .. speed(event:rep(80), sse.reader)) -- libcurl hands over 16 KB at most
print("bytes " .. speed_of_line(20000))
print("line " .. speed_of_line(1000000))
