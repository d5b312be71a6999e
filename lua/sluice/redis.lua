-- SPDX-License-Identifier: MIT
-- Redis: commands as methods, over one connection that all tasks share.

local errors = require "sluice.errors"
local failure = require "sluice.redis.failure"
local links = require "sluice.redis.link"
local options = require "sluice.options"
local owns = require "sluice.redis.own"
local queue = require "sluice.redis.queue"
local rules = require "sluice.redis.rules"
local secret = require "sluice.secret"
local task = require "sluice.task"
local urls = require "sluice.redis.url"

local redis = {}

---@class sluice.redis.Options
---@field url? string|sluice.Secret redis://user:password@host:port/db, rediss:// for TLS, unix:/path?db=2; redis://127.0.0.1:6379
---@field user? string
---@field password? string|sluice.Secret
---@field db? integer
---@field timeout? number seconds for the reply to a command, 5; one that blocks has this on top of its own time; 0: no limit
---@field connect_timeout? number seconds for name, TCP, TLS and AUTH, 5
---@field max_reply? integer bytes of one reply, 100 MiB; a larger one is a ProtocolError
---@field max_blocking? integer connections for commands that block and for transactions that watch, 64; who needs one more waits
---@field ca_file? string authorities in PEM; Debian's
---@field verify? boolean check the server's certificate, true
---@field cert? string our certificate, in PEM
---@field key? string its key
---@field server_name? string what the server's certificate must say, where that is not the host of the url
local OPTIONS <const> = {
  url = "text?", user = "name?", password = "text?", db = "integer?", timeout = "seconds?",
  connect_timeout = "positive?", max_reply = "count?", max_blocking = "count?", ca_file = "name?",
  verify = "boolean?", cert = "name?", key = "name?", server_name = "name?",
}

local WITH <const> = { timeout = "seconds" }

local DEFAULT_URL <const> = "redis://127.0.0.1:6379"
local TIMEOUT <const>, CONNECT_TIMEOUT <const> = 5, 5
local MAX_REPLY <const>, MAX_BLOCKING <const> = 100 << 20, 64

-- Of a cluster's nodes that point at each other.
local MOST_REDIRECTS <const> = 5

---A client: every Redis command is a method of its name in small letters. `client:get(key)` gives the
---value, nil where there is none, or nil and an err; numbers in replies are integers, and inside an array
---null is false. All tasks share one connection, and their commands go out together.
---@class sluice.redis.Client
local methods = {}
local metatable = { __name = "sluice.redis" }

local function place_of(given)
  local place, problem = urls.parse(secret.reveal(given.url or DEFAULT_URL))
  if not place then options.misuse("redis.connect: the url is malformed: %s", problem) end
  if given.db and given.db < 0 then options.misuse "redis.connect: a database has a number of at least 0" end
  place.user = given.user or place.user
  place.password = given.password and secret.new(given.password) or place.password
  place.db = given.db or place.db
  if place.user and not place.password then options.misuse "redis.connect: a user needs a password" end
  if (given.cert == nil) ~= (given.key == nil) then
    options.misuse 'redis.connect: "cert" and "key" go together'
  end
  place.shown = urls.show(place)
  return place
end

---Makes a client. Does not wait: the first command connects. Where the connection is lost, the commands
---in flight fail, and the next one connects again at once; while the server cannot be reached, commands
---fail at once with `retry_after`, up to 2 s.
---@param given? sluice.redis.Options
---@return sluice.redis.Client
function redis.connect(given)
  given = options.check("redis.connect", given, OPTIONS)
  local settings = {
    connect_timeout = given.connect_timeout or CONNECT_TIMEOUT, max_reply = given.max_reply or MAX_REPLY,
    ca_file = given.ca_file, verify = given.verify, cert = given.cert, key = given.key,
    server_name = given.server_name,
  }
  local place = place_of(given)
  return setmetatable({
    _link = links.new(place, settings),
    _timeout = given.timeout or TIMEOUT,
    _shared = {
      place = place, settings = settings, nodes = {}, blocking = 0,
      slots = given.max_blocking or MAX_BLOCKING, counts = { timeouts = 0, redirects = 0 },
    },
  }, metatable)
end

---The same client, connections and all, with another limit for its commands.
---@param given { timeout: number } seconds; 0: no limit
---@return sluice.redis.Client
function methods:with(given)
  given = options.check("client:with", given, WITH)
  return setmetatable({ _link = self._link, _timeout = given.timeout, _shared = self._shared }, metatable)
end

-- ---- redirects of a cluster ----

local function node_of(self, address)
  local shared = self._shared
  local host, port = address:match "^(.*):(%d+)$"
  if not host or shared.place.path then return nil end
  if host == "" then host = shared.place.host end -- the node does not know its own name
  local name = host .. ":" .. port
  local node = shared.nodes[name]
  if not node then
    local place = {}
    for key, value in pairs(shared.place) do place[key] = value end
    place.host, place.port = host, math.tointeger(tonumber(port))
    place.shown = urls.show(place)
    node = links.new(place, shared.settings)
    shared.nodes[name] = node
  end
  return node
end

-- Of several commands that went together, the last one's outcome.
local function last_of(replies, ...)
  if not replies then return nil, ... end
  local value = replies[#replies]
  if errors.is(value) then return nil, value end
  return value or nil
end

local send

-- Follows MOVED and ASK to the node that has the key.
local function follow(self, err, hops, name, ...)
  local node = hops < MOST_REDIRECTS and node_of(self, err.message:match "(%S+)$" or "")
  if not node then return nil, err end
  self._shared.counts.redirects = self._shared.counts.redirects + 1
  if err.code == "MOVED" then return send(self, node, hops + 1, name, ...) end
  local connection, problem = node:get()
  if not connection then return nil, problem end
  return last_of(connection:batch(self._timeout, { { "ASKING" }, { name, ... } }))
end

-- ---- commands ----

-- What a connection says of a failure, as an err; true where the command may be tried on another connection.
local function explain(self, link, connection, kind, text, sent, name)
  local timed_out = kind == "TimeoutError" and not text
  local had_worked = true
  if timed_out then
    self._shared.counts.timeouts = self._shared.counts.timeouts + 1
  else
    had_worked = link:lost(connection)
  end
  if kind == "Closed" or (not sent and not timed_out and had_worked) then return nil, true end
  return failure.lost(kind, text, sent, { operation = name, object = link.object, seconds = self._timeout })
end

-- The outcome of a try: what the caller gets, or `again` where nothing was sent and another try makes sense.
local function settle(self, link, connection, hops, name, words, value, kind, text, sent)
  if kind == nil then return false, value end
  if type(kind) == "table" then
    kind.operation = name
    if kind.code == "MOVED" or kind.code == "ASK" then
      return false, follow(self, kind, hops, name, table.unpack(words, 1, words.n))
    end
    return false, nil, kind
  end
  if kind == "BadWord" then
    words = queue.words(name, words) -- raises for all but secrets
    return false, send(self, link, hops, name, table.unpack(words))
  end
  local err, again = explain(self, link, connection, kind, text, sent, name)
  return again, nil, err
end

-- Sends a command over the shared connection of a link. A connection that was closed while nobody looked
-- costs one more try, no more: then it is the server's state.
function send(self, link, hops, name, ...)
  local words = table.pack(...)
  for _ = 1, 2 do
    local connection, problem = link:get()
    if not connection then return nil, problem end
    local again, value, err = settle(self, link, connection, hops, name, words,
      connection:command(self._timeout, name, ...))
    if not again then return value, err end
  end
  return nil, failure.lost("ConnectError", "the server closed the connection", false,
    { operation = name, object = link.object })
end

-- A place among the connections of one task's own; waits for one.
local function acquire(self)
  local shared = self._shared
  shared.semaphore = shared.semaphore or task.semaphore(shared.slots)
  local permit = shared.semaphore:acquire()
  shared.blocking = shared.blocking + 1
  return function()
    shared.blocking = shared.blocking - 1
    local _ <close> = permit
  end
end

---A connection of the caller's own. Waits for a place among `max_blocking`.
---@private
---@param seconds? number the limit of its commands
function methods:_own(seconds)
  return owns.new(self._link, seconds or self._timeout, acquire(self))
end

local function send_blocking(self, name, block, ...)
  local seconds = self._timeout > 0 and block < math.huge and block + self._timeout or 0
  local own <close>, err = self:_own(seconds)
  if not own then return nil, err end
  local value
  value, err = own:command(name, ...)
  own.clean = err == nil or err.kind == "RedisError"
  return value, err
end

local function send_special(self, name, ...)
  local words = table.pack(...)
  local refusal = rules.refusal(name, words[1])
  if refusal then options.misuse("redis: %s cannot be sent: %s", name, refusal) end
  local block = rules.block_time(name, words)
  if block then return send_blocking(self, name, block, ...) end
  return send(self, self._link, 0, name, ...)
end

---Sends a command, by its name: for those whose name is a method of the client's own. Waits.
---@param name string "XADD"
---@param ... string|number|sluice.Secret
---@return any value a string, an integer or an array; nil for null
---@return sluice.Error? err RedisError with the `code` of an error reply; ConnectError, TimeoutError (`limit`: "command" or "connect"), TLSError, ProtocolError
function methods:command(name, ...)
  options.argument("client:command", "name", name, "name")
  return send_special(self, name:upper(), ...)
end

-- The method of a command's name.
local function make_method(name)
  name = name:upper()
  if not rules.is_plain(name) then
    return function(self, ...) return send_special(self, name, ...) end
  end
  return function(self, ...)
    local link = self._link
    local connection = link.connection
    if not connection then return send(self, link, 0, name, ...) end
    local value, kind, text, sent = connection:command(self._timeout, name, ...)
    if kind == nil then return value end
    local words = table.pack(...)
    local again, result, err = settle(self, link, connection, 0, name, words, value, kind, text, sent)
    if again then return send(self, link, 0, name, ...) end
    return result, err
  end
end

metatable.__index = queue.extend(methods, make_method)

---Sends commands together over the shared connection. Waits.
---@private
---@param commands table[]
---@return table? replies
---@return sluice.Error?
function methods:_batch(commands)
  local link = self._link
  for _ = 1, 2 do
    local connection, problem = link:get()
    if not connection then return nil, problem end
    local replies, kind, text, sent = connection:batch(self._timeout, commands)
    if replies then return replies end
    local err, again = explain(self, link, connection, kind, text, sent, commands[1][1])
    if not again then return nil, err end
  end
  return nil, failure.lost("ConnectError", "the server closed the connection", false,
    { operation = commands[1][1], object = link.object })
end

---Sends commands without waiting for their replies, which nobody sees; what has not left when the
---connection is lost is lost too. Never waits.
---@param commands (string|number)[][]
---@return boolean whether there was a connection to send them over
function methods:post(commands)
  options.argument("client:post", "commands", commands, "table")
  local collected = queue.new(false)
  for _, words in ipairs(commands) do collected:command(table.unpack(words)) end
  commands = queue.commands(collected)
  local link = self._link
  for _ = 1, 2 do
    local connection = link:get()
    if not connection then return false end
    if connection:post(commands) then return true end
    link:lost(connection)
  end
  return false
end

---Sends what a function queues in one go, and gives the replies in order: null is false, and an error
---reply is an err in its place. Others' commands may come in between. Waits.
---@param f fun(queue: sluice.redis.Queue)
---@return table? replies
---@return sluice.Error? err of a connection that failed
function methods:pipeline(f)
  options.argument("client:pipeline", "f", f, "callable")
  local collected = queue.new(false)
  f(collected)
  local commands = queue.commands(collected)
  if #commands == 0 then return {} end
  return self:_batch(commands)
end

---Sends what a function queues as one transaction (MULTI, EXEC), and gives the replies in order as
---client:pipeline does. With `watch` the function also gets a connection of its own, to read those keys
---by: where one of them is changed before the end, the function is run again, up to `attempts` (10) times. Waits.
---@param f fun(tx: sluice.redis.Queue, now: sluice.redis.Own?)
---@param given? { watch?: string[], attempts?: integer }
---@return table? replies
---@return sluice.Error?
function methods:transaction(f, given)
  options.argument("client:transaction", "f", f, "callable")
  local run = require("sluice.redis.transaction").run
  return run(self, f, given)
end

---A script that runs in the server: `script(keys, ...)` sends its digest, and its text where the server
---does not know it. Never waits.
---@param text string
---@return sluice.redis.Script
function methods:script(text)
  options.argument("client:script", "text", text, "name")
  local made = require("sluice.redis.script").new(self, text)
  return made
end

---The `store` of a layers.limit that processes share: the same name, the same limit. See docs/limits.md.
---@param name string
---@param given? sluice.limit.RedisOptions
---@return fun(plan: sluice.limit.Plan): sluice.limit.State
function methods:limit_store(name, given)
  local store = require("sluice.limit.redis").new(self, name, given)
  return store
end

---What there is and was: `state` of the shared connection ("idle", "connecting", "open"), `connections`,
---`lent` (of these, to one task each), `in_flight` commands, `connects`, `failures` of connecting,
---`timeouts` of commands, `redirects`. Never waits.
---@return table<string, integer|string>
function methods:stats()
  local shared = self._shared
  local counts = {
    state = "idle", connections = 0, lent = 0, in_flight = 0, connects = 0, failures = 0,
    timeouts = shared.counts.timeouts, redirects = shared.counts.redirects,
  }
  if self._link.connection then counts.state = self._link.connection:facts() end
  self._link:count(counts)
  for _, node in pairs(shared.nodes) do node:count(counts) end
  return counts
end

---Closes the connections: commands in flight fail, and so do all later ones. Idempotent.
function methods:close()
  self._link:close()
  for _, node in pairs(self._shared.nodes) do node:close() end
end

metatable.__close = methods.close

function metatable:__tostring()
  return self._link.object
end

---A batch that any number of processes share: the `input` of batch.run in each of them, with feed(), collect(),
---status() and delete(). Needs Redis 6.2. See docs/batch.md. Does not wait.
---@param given sluice.SharedBatchOptions
---@return sluice.SharedBatch
function redis.stream(given)
  local made = require("sluice.batch.shared").new(given)
  return made
end

-- ---- replies that are awkward as they come ----

---The table that a reply of names and values in turn means: HGETALL, CONFIG GET, XINFO. Never waits.
---@param reply table
---@return table<string, any>
function redis.map(reply)
  options.argument("redis.map", "reply", reply, "table")
  local map = {}
  for index = 1, #reply, 2 do map[reply[index]] = reply[index + 1] end
  return map
end

local function add_entries(list, entries, stream)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    list[#list + 1] = { id = entry[1], stream = stream, fields = fields and redis.map(fields) or nil }
  end
end

---The entries of a stream in the reply of XRANGE, XREVRANGE, XREAD, XREADGROUP, XCLAIM or XAUTOCLAIM, in
---order. `fields` is nil of one that was deleted, and `stream` is there where the reply says it. Never waits.
---@param reply table? nil (XREAD had nothing) gives none
---@return { id: string, stream: string?, fields: table<string, string>? }[]
function redis.entries(reply)
  options.argument("redis.entries", "reply", reply, "table?")
  local list = {}
  if type(reply) ~= "table" then return list end
  if type(reply[1]) == "string" then -- XAUTOCLAIM: where to go on, then the entries
    add_entries(list, reply[2])
    return list
  end
  for _, item in ipairs(reply) do
    local inner = item[2]
    if type(inner) == "table" and type(inner[1]) ~= "string" then
      add_entries(list, inner, item[1]) -- a stream, maybe without entries
    else
      add_entries(list, { item })
    end
  end
  return list
end

return redis
