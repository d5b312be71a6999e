-- SPDX-License-Identifier: MIT
-- Writes the results of a shared batch to a file, each once, whoever is killed in between.
--
-- What is on the disk is taken out of Redis, in one step with the size that the output has then. Another collector
-- cuts the output to that size and goes on: what was written behind it is still in Redis.

local files = require "sluice.batch.files"
local json = require "sluice.json"
local summary = require "sluice.batch.summary"
local tally = require "sluice.batch.tally"
local task = require "sluice.task"

local collector = {}

local MOST_ROWS <const>, MOST_BYTES <const> = 500, 4 << 20 -- of one step
local MOST_HELD <const> = 8 << 20 -- bytes of results that wait for their turn; of others only the place is known
local CONFIRM_ROWS <const>, CONFIRM_SECONDS <const> = 2000, 1 -- after so much the disk is waited for
local CONFIRM_IDLE <const> = 0.1 -- seconds, where nothing else comes
local LEAST_PAUSE <const>, MOST_PAUSE <const> = 0.01, 0.25 -- seconds, while nothing comes

local PROBLEMS <const> = {
  order = "it was begun with another order of its results",
  short = "it is shorter than what was collected, and that is not in Redis any more",
  long = "it has more than what was collected, and is not the file that was begun",
}

local ATTACH_PAUSE <const> = 0.25 -- seconds, while nobody has fed the batch

local function attach(self)
  local reply, err
  repeat
    reply, err = self.server:call("attach", "", self.order, self.output.identity, self.output.size)
    if not reply then return nil, err end
    local is_early = reply[1] == "none"
    if is_early then task.sleep(ATTACH_PAUSE) end
  until not is_early
  if PROBLEMS[reply[1]] then return nil, files.conflict(self.output.path, PROBLEMS[reply[1]]) end
  self.run, self.number = reply[2], reply[3]
  self.top, self.missing = math.tointeger(reply[5]), {}
  for _, place in ipairs(json.decode(reply[6])) do self.missing[place] = true end
  self.tally = tally.new(json.decode(reply[7]))
  self.is_ended = reply[1] == "ended"
  if math.tointeger(reply[4]) < self.output.size then return self.output:cut(math.tointeger(reply[4])) end
  return true
end

-- ---- which places have their result ----

local function is_known(self, place)
  return place <= self.top and not self.missing[place]
end

local function note_place(self, place)
  self.missing[place] = nil
  for each = self.top + 1, place - 1 do self.missing[each] = true end
  self.top = math.max(self.top, place)
end

-- ---- results ----

local function count(self, result)
  local parsed = json.decode(result.line) or {}
  local seconds, ttft, retries = result.facts:match "^(%S+) (%S+) (%d+)$"
  if parsed.error then
    self.tally:fail(tostring(parsed.error.kind))
  else
    self.tally:succeed(parsed.response, tonumber(seconds), tonumber(ttft))
  end
  self.tally.retries = self.tally.retries + math.tointeger(retries)
end

local function emit(self, result)
  if not result.line then
    local err
    result.line, err = self.server:line_of(result.id)
    if not result.line then return nil, err or self.server:conflict "a result was taken away from Redis" end
  end
  count(self, result)
  note_place(self, result.place)
  self.lines[#self.lines + 1], self.done[#self.done + 1] = result.line, result.id
  return true
end

local function hold(self, result)
  if self.held_bytes + #result.line > MOST_HELD then
    result.line = nil
  else
    self.held_bytes = self.held_bytes + #result.line
  end
  self.held[result.place] = result
end

local function emit_due(self)
  local result = self.held[self.top + 1]
  while result do
    self.held[result.place] = nil
    if result.line then self.held_bytes = self.held_bytes - #result.line end
    local ok, err = emit(self, result)
    if not ok then return nil, err end
    result = self.held[self.top + 1]
  end
  return true
end

-- Redis may have lost that a row was done, and had it done again.
local function accept(self, entry)
  local id, fields = entry[1], entry[2]
  local place = math.tointeger(fields[2]:match "^(%d+)")
  self.last = id
  if is_known(self, place) or self.held[place] then
    self.done[#self.done + 1] = id
    return true
  end
  local result = { id = id, place = place, line = fields[4], facts = fields[6] }
  if self.order == "completion" then return emit(self, result) end
  hold(self, result)
  return emit_due(self)
end

local function write(self)
  if #self.lines == 0 then return true end
  local ok, err = self.output:write(table.concat(self.lines))
  self.lines = {}
  return ok, err
end

-- How many came; nil and an err.
local function drain(self)
  local reply, err = self.server:call("drain", self.run, self.number, self.last, MOST_ROWS, MOST_BYTES)
  if not reply then return nil, err end
  if reply[1] == "replaced" then return nil, self.server:conflict "another collector has taken over" end
  self.total, self.fed = math.tointeger(tonumber(reply[2])), math.tointeger(reply[3])
  for _, entry in ipairs(reply[4]) do
    local ok
    ok, err = accept(self, entry)
    if not ok then return nil, err end
  end
  local ok
  ok, err = write(self)
  if not ok then return nil, err end
  return #reply[4]
end

local function collected(self)
  return self.tally.ok + self.tally.failed
end

local function confirm(self)
  local ok, err = self.output:sync()
  if not ok then return nil, err end
  local missing, done = {}, self.done
  for place in next, self.missing do missing[#missing + 1] = place end
  local reply
  self.done, self.confirmed = {}, task.now()
  reply, err = self.server:call("confirm", self.run, self.number, self.output.size, collected(self), self.top,
    json.encode(json.array(missing)), json.encode(self.tally:save()), table.unpack(done))
  if not reply then return nil, err end
  if reply[1] == "replaced" then return nil, self.server:conflict "another collector has taken over" end
  return true
end

local function is_due(self, came)
  if #self.done == 0 then return false end
  local since = task.now() - self.confirmed
  return #self.done >= CONFIRM_ROWS or since >= CONFIRM_SECONDS or came == 0 and since >= CONFIRM_IDLE
end

local function show(self)
  if not self.bar then return end
  self.bar:set { total = self.total, done = collected(self), ok = self.tally.ok, failed = self.tally.failed }
end

local function collect(self)
  local pause = LEAST_PAUSE
  while self.total ~= collected(self) or #self.done > 0 do
    local came, err = drain(self)
    if not came then return nil, err end
    show(self)
    if is_due(self, came) or self.total == collected(self) then
      local ok
      ok, err = confirm(self)
      if not ok then return nil, err end
    end
    pause = came > 0 and LEAST_PAUSE or math.min(2 * pause, MOST_PAUSE)
    if came < MOST_ROWS and self.total ~= collected(self) then task.sleep(pause) end
  end
  return self.server:call("finish", self.run, self.keep)
end

-- ---- the whole ----

local function open(server, given)
  local output, err = files.append(given.output, "write batch output")
  if not output then return nil, err end
  if not output.is_regular then
    output:close()
    return nil, files.failure("write batch output", given.output, "a shared batch needs a regular file")
  end
  return {
    server = server, output = output, order = given.order, keep = given.keep, last = "0",
    lines = {}, done = {}, held = {}, held_bytes = 0, started = task.now(), confirmed = -math.huge,
  }
end

local function new_bar(self, given)
  if not given.progress then return nil end
  if type(given.progress) == "table" then return given.progress end
  return require("sluice.progress").bar { done = collected(self), label = "batch", unit = "rows" }
end


local function go(self, given)
  local ok, err = attach(self)
  if not ok then return nil, err end
  local before = { rows = collected(self), tokens = self.tally.tokens }
  if not self.is_ended then
    self.bar = new_bar(self, given)
    ok, err = collect(self)
    if self.bar and self.bar ~= given.progress then self.bar:close() end
  end
  local told = summary.of_shared(self.tally, task.now() - self.started, before, ok ~= nil)
  if not ok then
    err.summary = told
    return nil, err
  end
  if given.report then
    ok, err = summary.write(told, given.report)
    if not ok then return nil, err end
  end
  return told
end

---Collects until every row has its result. Waits.
---@param server sluice.batch.shared.Server
---@param given { output: string, order: string, keep: integer, progress: any, report: string? }
---@return sluice.BatchSummary? told
---@return sluice.Error? err
function collector.run(server, given)
  local self, err = open(server, given)
  if not self then return nil, err end
  local _ <close> = setmetatable({}, { __close = function() self.output:close() end })
  return go(self, given)
end

return collector
