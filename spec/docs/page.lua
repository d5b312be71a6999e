-- SPDX-License-Identifier: MIT
-- Runs the Lua blocks of one page of the docs, each as the page shows it; prints `ok LINE` or why not.
--
--     sluice spec/docs/page.lua PAGE.md [REDIS_URL]
--
-- Names that a page takes for granted come from names.lua. Addresses are replaced by free ones.

local here <const> = arg[0]:match "^(.*)/" or "."
package.path = here .. "/?.lua;" .. package.path

local names = require "names"
local settings = require "sluice.settings"
local task = require "sluice.task"

-- Seconds.
local BLOCK_MAY_TAKE <const>, SERVING <const> = 20, 0.3

-- Blocks that want what takes long to make: they are compiled; rollout_spec and emulator_sql_spec do the same.
local COMPILED <const> = { "rollout%.run", "main%.logs%.", "main%.demo%.questions" }

local path <const>, redis_url <const> = arg[1], arg[2]

local function blocks_of(text)
  local blocks, line, open = {}, 0, nil
  for row in (text .. "\n"):gmatch "(.-)\n" do
    line = line + 1
    if open and row:find "^```" then
      blocks[#blocks + 1], open = open, nil
    elseif open then
      open[#open + 1] = row
    elseif row == "```lua" then
      open = { line = line }
    end
  end
  return blocks
end

-- What others must find free, or not find at all.
local function replaced(source, given)
  source = source:gsub("127%.0%.0%.1:80%d%d\"", "127.0.0.1:0\""):gsub("0%.0%.0%.0:80%d%d", "127.0.0.1:0")
  source = source:gsub("https://host/%a+", given.url):gsub("http://127%.0%.0%.1:8000/v1", given.openai)
  source = source:gsub("redis://127%.0%.0%.1:6379", redis_url or "redis://127.0.0.1:1")
  return (source:gsub('os%.getenv "REDIS_URL"', ("%q"):format(redis_url or "")))
end

local printed = {}

local function note(...)
  local words = table.pack(...)
  for index = 1, words.n do words[index] = tostring(words[index]) end
  printed[#printed + 1] = table.concat(words, " ")
end

-- Globals of one page: a block may use what one before it has made without `local`.
local function environment_of(given)
  local own_io = setmetatable({ write = note, stdout = io.stdout }, { __index = io })
  return setmetatable({ print = note, io = own_io }, {
    __index = function(_, name)
      local value = given[name]
      if value == nil then return _G[name] end
      return value
    end,
  })
end

local ENDLESS <const> = { ":serve%(", "sse%.connect", "repl%.run" }

local function has_one_of(patterns, source)
  for _, pattern in ipairs(patterns) do
    if source:find(pattern) then return true end
  end
  return false
end

-- A block that serves is ended once it does.
local function run(chunk, serves, source)
  -- the token of the environment would be a second way to log in
  if source:find "token_command" then settings.set { DATABRICKS_TOKEN = false } end
  if not serves then return assert(task.timeout(BLOCK_MAY_TAKE, function() chunk() return true end)) end
  local server = task.spawn(chunk)
  task.sleep(SERVING)
  server:cancel "seen"
  local ok, err = pcall(server.join, server)
  if not ok and err.kind ~= "TaskCancelled" then error(err, 0) end
end

local file <close> = assert(io.open(path))
local text = file:read "a"
local failed = 0
names.with(path, redis_url, function(given)
  local environment = environment_of(given)
  for _, block in ipairs(blocks_of(text)) do
    local source = replaced(table.concat(block, "\n"), given)
    local ok, err = xpcall(function()
      local chunk = assert(load(("\n"):rep(block.line) .. source, "=" .. path, "t", environment))
      if not has_one_of(COMPILED, source) then run(chunk, has_one_of(ENDLESS, source), source) end
    end, debug.traceback)
    failed = failed + (ok and 0 or 1)
    print(ok and "ok" or "FAILED", block.line, ok and "" or err)
  end
end)
os.exit(failed == 0 and 0 or 1)
