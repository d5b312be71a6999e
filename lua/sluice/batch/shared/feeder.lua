-- SPDX-License-Identifier: MIT
-- Puts the rows of an input into a shared batch, each once, whoever is killed in between.

local input = require "sluice.batch.input"
local json = require "sluice.json"
local system = require "sluice.core.system"
local task = require "sluice.task"

local feeder = {}

local MOST_ROWS <const>, MOST_BYTES <const> = 500, 1 << 20 -- of one step: a millisecond or two of Redis's time
local PAUSE <const> = 0.05 -- seconds until it is looked again whether there is room

local function new_run()
  return (system.random(8):gsub(".", function(char) return ("%02x"):format(char:byte()) end))
end

-- What the input is known by. One that cannot be read again is known by nothing, and nobody can go on with it.
local function identity_of(source)
  local identity, err
  if source.identify then identity, err = source:identify() end
  if identity then return ("%s:%d:%s"):format(identity.kind, identity.size, identity.hash), true end
  if err and type(err) == "table" then return nil, err end
  return "once:" .. new_run(), false
end

local PROBLEMS <const> = {
  conflict = "it was begun with another input, or with one that has changed since, or cannot be read twice",
  stray = "under its keys are rows of another time; delete them",
}

local function begin(self)
  local identity, can_seek = identity_of(self.source)
  if not identity then return nil, can_seek end
  self.can_seek = can_seek
  local reply, err = self.server:call("begin", new_run(), identity, self.source.offset or 0)
  if not reply then return nil, err end
  if PROBLEMS[reply[1]] then return nil, self.server:conflict(PROBLEMS[reply[1]]) end
  local _, run, fed, number, offset, total = table.unpack(reply)
  self.run, self.fed, self.total = run, math.tointeger(fed), math.tointeger(tonumber(total))
  self.number, self.collected, self.before = math.tointeger(number), 0, self.fed
  if self.fed > 0 then self.source:seek(self.number + 1, math.tointeger(offset)) end
  return true
end

-- An empty line stands for one that is too long: there is no empty row.
local function text_of(item)
  if type(item) == "string" then return item end
  if not item then return "" end
  local ok, text = pcall(json.encode, item)
  return ok and text or json.encode(tostring(text))
end

-- The next words of a step: { number, line }...; whether the input has ended.
local function next_rows(self, most)
  local words, bytes = {}, 0
  while #words < 2 * most and bytes < MOST_BYTES do
    local number, item = self.source:next()
    if not number then
      if item then return nil, item end
      return words, true
    end
    local text = text_of(item)
    words[#words + 1], words[#words + 2] = number, text
    bytes = bytes + #text
  end
  return words, false
end

-- Another feeder was there first, or Redis has come back with an earlier state: goes on from there.
local function go_on_from(self, fed, number, offset, total)
  if not self.can_seek then
    return nil, self.server:conflict "its input cannot be read again, and some of it is needed again"
  end
  self.fed, self.number = math.tointeger(fed), math.tointeger(number)
  self.total = math.tointeger(tonumber(total))
  self.source:seek(self.number + 1, math.tointeger(offset))
  return true
end

local function feed_some(self)
  local room = self.ahead - (self.fed - self.collected)
  if room <= 0 then task.sleep(PAUSE) end
  local words, is_last = next_rows(self, math.max(math.min(room, MOST_ROWS), 0))
  if not words then return nil, is_last end
  local number = #words > 0 and words[#words - 1] or self.number
  local source = self.source
  local reply, err = self.server:call("feed", self.run, self.fed, number, source.offset or 0,
    is_last and 1 or 0, table.unpack(words))
  if not reply then return nil, err end
  if reply[1] == "moved" then return go_on_from(self, table.unpack(reply, 2)) end
  self.number, self.fed, self.collected = number, math.tointeger(reply[2]), math.tointeger(reply[3])
  if is_last then self.total = self.fed end
  return true
end

---Feeds an input to its end. Waits.
---@param server sluice.batch.shared.Server
---@param given { input: any, max_line: integer, ahead: integer }
---@return { rows: integer, fed: integer }? told how many rows there are, and how many of them were put there now
---@return sluice.Error? err
function feeder.run(server, given)
  local source, err = input.open(given.input, given.max_line)
  if not source then return nil, err end
  local _ <close> = setmetatable({}, { __close = function() if source.close then source:close() end end })
  local self = { server = server, source = source, ahead = given.ahead }
  local ok
  ok, err = begin(self)
  while ok and not self.total do ok, err = feed_some(self) end
  if not ok then return nil, err end
  return { rows = self.total, fed = self.total - self.before }
end

return feeder
