-- SPDX-License-Identifier: MIT
-- One batch that any number of processes share, by way of Redis: redis.stream.

local options = require "sluice.options"
local server = require "sluice.batch.shared.server"

local shared = {}

local IDLE <const> = 60 -- seconds: much longer than a loop is held up, and a dead worker's rows wait no longer
local AHEAD <const> = 10000 -- rows in Redis, done or not: some 10 MB of chats
local MOST_DELIVERIES <const> = 3
local PATIENCE <const> = 300 -- seconds: a server that is restarted, with what it has to load
local KEEP <const> = 86400 -- seconds
local MAX_LINE <const> = 16 << 20

---@class sluice.SharedBatchOptions
---@field client sluice.redis.Client of Redis 6.2 or newer
---@field name string of the batch: the same for all who share it; without blanks and braces
---@field consumer? string the name of this process among the workers; one by chance
---@field idle? number seconds without a sign of life after which a worker's rows go to others, 60
---@field ahead? integer rows that may be in Redis, waiting, under way or not yet collected, 10,000
---@field max_deliveries? integer workers that may end while they have a row; then it is a row with a PoisonedRow error, 3
---@field patience? number seconds that Redis may be away, 300
---@field keep? integer seconds for which it is known that the batch is done, 86,400
local OPTIONS <const> = {
  client = "table", name = "name", consumer = "name?", idle = "positive?", ahead = "count?",
  max_deliveries = "count?", patience = "seconds?", keep = "count?",
}

---A batch that processes share. It is the `input` of batch.run in each of them; one feeds it, one collects.
---@class sluice.SharedBatch
---@field name string
local methods = {}
local metatable = { __name = "sluice.batch.shared", __index = methods }

---See redis.stream.
---@param given sluice.SharedBatchOptions
---@return sluice.SharedBatch
function shared.new(given)
  given = options.check("redis.stream", given, OPTIONS)
  if (getmetatable(given.client) or {}).__name ~= "sluice.redis" then
    options.misuse 'redis.stream: option "client" must be a client of redis.connect'
  end
  if given.name:find "[%s{}]" then
    options.misuse 'redis.stream: option "name" must be without blanks and braces'
  end
  return setmetatable({
    name = given.name, is_shared = true, _given = given,
    _server = server.new(given.client, given.name, given.patience or PATIENCE),
  }, metatable)
end

local FEED <const> = { input = "name|table|callable", max_line = "count?" }

---Puts the rows of an input into Redis, each once: killed, and run again with the same input, it goes on. Keeps no
---more than `ahead` of them there, so somebody must collect. Waits until all are there.
---@param given { input: string|table|function, max_line?: integer } as of batch.run
---@return { rows: integer, fed: integer }? told how many rows there are; how many of them this call has put there
---@return sluice.Error? err FileError; BatchConflict where the batch has another input; RedisError, ConnectError, ...
function methods:feed(given)
  given = options.check("batch:feed", given, FEED)
  return require("sluice.batch.shared.feeder").run(self._server, {
    input = given.input, max_line = given.max_line or MAX_LINE, ahead = self._given.ahead or AHEAD,
  })
end

---Takes part in the batch: what batch.run does with it. Does not wait.
---@private
---@return sluice.batch.shared.Worker
function methods:consume()
  return require("sluice.batch.shared.worker").new(self._server, {
    consumer = self._given.consumer, idle = self._given.idle or IDLE,
    max_deliveries = self._given.max_deliveries or MOST_DELIVERIES,
  })
end

local function is_order(value)
  return value == "input" or value == "completion", '"input" or "completion"'
end

local COLLECT <const> = { output = "name", order = is_order, progress = "boolean|table?", report = "name?" }

---Writes the results to a file, a line for each row as batch.run does: killed, and run again with the same file, it
---goes on. At the end it takes the rows and results out of Redis. Waits until every row has its result.
---@param given { output: string, order?: "input"|"completion", progress?: boolean|sluice.ProgressBar, report?: string } as of batch.run
---@return sluice.BatchSummary? summary of all workers
---@return sluice.Error? err FileError; BatchConflict where the file is another's; `err.summary` tells what was done
function methods:collect(given)
  given = options.check("batch:collect", given, COLLECT)
  return require("sluice.batch.shared.collector").run(self._server, {
    output = given.output, order = given.order or "input", progress = given.progress, report = given.report,
    keep = self._given.keep or KEEP,
  })
end

---@class sluice.SharedBatchStatus
---@field rows integer? in all; nil until the feeder has come to the end
---@field fed integer rows that were put there
---@field ok integer rows with an answer
---@field failed integer rows with an error
---@field collected integer results that are in the output
---@field waiting integer rows that nobody has taken
---@field under_way integer rows that workers have
---@field complete boolean whether all is collected

---How it stands. Waits.
---@return sluice.SharedBatchStatus? status nil where there is no such batch
---@return sluice.Error? err
function methods:status()
  local reply, err = self._server:call("status", "")
  if not reply or reply[1] == "none" then return nil, err end
  local function number(index) return math.tointeger(tonumber(reply[2][index])) end
  return {
    rows = number(1), fed = number(2), ok = number(3) or 0, failed = number(4) or 0,
    collected = number(5) or 0,
    waiting = reply[3] - reply[5], under_way = reply[5], complete = reply[2][6] ~= "",
  }
end

---Takes all of it out of Redis, whatever is not done. Waits.
---@return boolean? deleted
---@return sluice.Error? err
function methods:delete()
  return self._server:delete()
end

return shared
