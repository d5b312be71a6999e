-- SPDX-License-Identifier: MIT
-- Event streams from our server: many of them with events of their own, what one costs in memory, and
-- how soon the request behind a client that leaves is closed.

local process = require "process"
local socket = require "sluice.core.socket"
local task = require "sluice.task"

local function answers(port)
  for _ = 1, 250 do
    local connection = socket.connect("127.0.0.1", tonumber(port))
    if connection then
      connection:close()
      return true
    end
    task.sleep(0.02)
  end
  return false
end

-- ---- many streams ----

local function start(bench, name, words)
  local server = process.serve(words, ("%s/%s.log"):format(bench.folder, name:gsub("[^%w]+", "-")))
  if not answers(words[#words - 1]) then error(name .. " does not listen", 0) end
  return server
end

local function read_streams(bench, reader, name, words, streams, milliseconds)
  local port = process.free_port()
  words[#words + 1], words[#words + 2] = port, milliseconds
  local server <close> = start(bench, name, words)
  local path = "/every/" .. milliseconds
  local said = process.measure { reader, port, path, streams, bench.seconds, server.pid }
  said.delivered = said.events / (streams * 1000 / milliseconds) * 100
  said.each = said.cpu * 1e4 / said.events
  return said
end

local function open_streams(streams, milliseconds)
  return function(bench)
    local reader = process.compile(bench, "stream_reader")
    local writer = process.compile(bench, "stream_writer", "-lev")
    local missing = not reader and "no C compiler"
      or not process.find "setpriv" and "setpriv is not installed"
    if missing then return { { name = "sluice", missing = missing } } end
    local function contestant(name, words_of)
      return { name = name, run = function()
        return read_streams(bench, reader, name, words_of(), streams, milliseconds)
      end }
    end
    return {
      contestant("sluice", function() return { bench.binary, bench.here .. "server_streams.lua" } end),
      contestant("C, libev and send", function() return { writer } end),
    }
  end
end

local function stream_figure(streams, milliseconds, bars)
  local what = ("%d streams, an event each %g s"):format(streams, milliseconds / 1000)
  return {
    name = what,
    open = open_streams(streams, milliseconds),
    rows = {
      { key = "cpu", label = what, unit = "% of a core", digits = 1, better = "less", bar = bars.cpu },
      { key = "each", label = "processor time of each event", unit = "us", digits = 1, better = "less" },
      { key = "delivered", label = "events delivered", unit = "%", digits = 1, better = "more", bar = 99 },
      { key = "p99", label = "an event is late by, p99", unit = "us", better = "less", bar = bars.p99 },
    },
  }
end

-- ---- one stream ----

local function open_memory(bench)
  return { { name = "sluice", run = function()
    return process.measure { bench.binary, bench.here .. "stream_memory.lua" }
  end } }
end

-- ---- a client that leaves ----

local function open_leaving(bench)
  return { { name = "sluice", run = function()
    return process.measure { bench.binary, bench.here .. "stream_leave.lua" }
  end } }
end

return {
  stream_figure(1000, 10, { cpu = 60, p99 = 2000 }),
  stream_figure(5000, 1000, { cpu = 12 }),
  {
    name = "a stream's memory",
    open = open_memory,
    rows = {
      { key = "bytes", label = "a stream, beside its task", unit = "B", better = "less", bar = 3072 },
    },
  },
  {
    name = "a client that leaves",
    open = open_leaving,
    rows = {
      { key = "stream", label = "left a stream: upstream closed, p99", unit = "ms", digits = 2,
        better = "less", bar = 100 },
      { key = "plain", label = "left a plain answer, p99", unit = "ms", digits = 2,
        better = "less", bar = 100 },
    },
  },
}
