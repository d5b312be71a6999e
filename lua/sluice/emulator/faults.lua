-- SPDX-License-Identifier: MIT
-- Faults by rule: which requests of the emulator fail, and how. The rules are those of the fault transport, and some of
-- the emulator's own: for deployments, and for the middle of a stream.

local errors = require "sluice.errors"
local rules = require "sluice.transports.rules"
local spoil = require "sluice.transports.spoil"
local stream = require "sluice.emulator.stream"
local task = require "sluice.task"
local wire = require "sluice.emulator.wire"

local faults = {}

local function one_of(...)
  local allowed = { ... }
  return function(value)
    for _, each in ipairs(allowed) do
      if each == value then return true end
    end
    return false, "one of " .. table.concat(allowed, ", ")
  end
end

local function amount(value)
  return math.type(value) == "integer" and value >= 0, "an integer of at least 0"
end

-- The fields of the emulator's own kinds. `chunks` is how many frames come before.
local kinds = {
  deployment = {
    outcome = one_of("fails", "dies", "canceled"), message = "string?", seconds = "seconds?",
  },
  stream_cut = { chunks = amount },
  stream_stall = { chunks = amount, seconds = "seconds?" },
  stream_drip = { chunks = amount, pause = "seconds" },
  stream_bad_json = { chunks = amount },
  stream_error = {
    chunks = amount, shape = one_of("openai", "databricks", "text"), status = "integer?", code = "string?",
    message = "string?",
  },
}

---@class sluice.emulator.Faults
local methods = {}
local metatable = { __index = methods, __name = "sluice.emulator.faults" }

---The faults of an emulator.
---@return table faults
function faults.new()
  local given = { kinds = kinds, common = { served_entity = "name?" } }
  return setmetatable({ rules = rules.new(nil, given), count = 0 }, metatable)
end

local creations = { ["/api/2.0/serving-endpoints"] = true, ["/api/2.0/serving-endpoints/pt"] = true }

local function begins_deployment(request)
  if request.method == "POST" then return creations[request.path] end
  return request.method == "PUT" and request.path:find("^/api/2%.0/serving%-endpoints/.+/config$") ~= nil
end

-- The decoded body, where it is an object; the handler reads it again and tells what is wrong with it.
local function body_of(request)
  local body = request:json()
  return wire.is_object(body) and body or {}
end

local function asks_for_stream(request)
  return request.method == "POST" and body_of(request).stream == true
end

-- What a rule of an own kind is for, beside what it says.
local function own_condition(kind)
  if kind == "deployment" then return begins_deployment end
  return kinds[kind] and asks_for_stream or nil
end

---Adds a rule behind the others.
---@param given table see sluice.FaultRule and docs/emulator.md
---@return integer|nil id
---@return string|nil problem
function methods:add(given)
  if type(given) ~= "table" then return self.rules:add(given) end
  local condition, when = own_condition(given.kind), given.when
  if condition then
    local copy = {}
    for key, value in pairs(given) do copy[key] = value end
    copy.when = function(request) return condition(request) and (not when or when(request)) end
    given = copy
  end
  local id, problem = self.rules:add(given)
  if id then self.count = self.count + 1 end
  return id, problem
end

---The rules, as they were given, with `id`, `seen` and `hits`.
---@return table[]
function methods:list() return self.rules:list() end

---Takes a rule out.
---@param id integer
---@return boolean found
function methods:remove(id)
  local found = self.rules:remove(id)
  if found then self.count = self.count - 1 end
  return found
end

---Takes all rules out.
function methods:clear()
  self.rules:clear()
  self.count = 0
end

-- The endpoint that a request is about, where its path does not tell: of a creation, and of the OpenAI paths.
local function endpoint_of(request)
  if request.method ~= "POST" then return nil end
  local path = request.path
  if creations[path] then return wire.given(body_of(request).name) end
  if path:find("/completions$") or path:find("/embeddings$") or path:find("/responses$") then
    return wire.given(body_of(request).model)
  end
end

-- In process, where there is no connection to cut, the caller gets an err: see faults.guard.
local function reset(request)
  if not request:abort() then
    local message = "the connection was reset by a fault rule"
    error(errors.new("TaskCancelled", { message = message, is_reset = true }), 0)
  end
  return { status = 500 }
end

local function reader_of(body)
  if type(body) == "function" then return body end
  return function()
    local piece = body
    body = nil
    return piece
  end
end

-- Ends a body: the server cuts the connection, so that the client sees an end that is none.
local function cut()
  return nil, errors.new("TruncatedStream", { message = "the stream was cut by a fault rule" })
end

local function error_frame(fault)
  local status = fault.status or 500
  local code = fault.code or "INTERNAL_ERROR"
  local message = fault.message or "The model failed in the middle of its answer."
  if fault.shape == "databricks" then return stream.frame { error_code = code, message = message } end
  if fault.shape == "text" then return stream.frame { error = message } end
  return stream.frame { error = { message = message, type = "server_error", code = code, status = status } }
end

local broken_frame <const> = 'data: {"id":"chatcmpl_0","choices":[{"delta":{"content":"The riv\n\n'

-- What comes instead of the next frame, after `chunks` of them.
local breaks = {
  stream_cut = cut,
  stream_error = function(fault) return error_frame(fault) end,
  stream_bad_json = function() return broken_frame end,
}

local function after_chunks(fault, read)
  local left, broken = fault.chunks or 0, false
  return function()
    if left > 0 then
      left = left - 1
      return read()
    end
    if fault.kind == "stream_drip" then
      task.sleep(fault.pause)
    elseif not broken then
      broken = true
      if breaks[fault.kind] then return breaks[fault.kind](fault) end
      task.sleep(fault.seconds or math.huge)
    elseif fault.kind == "stream_error" then
      return nil
    end
    return read()
  end
end

-- Spoils an answer that is there. Its length is not known any more.
local function spoiled(fault, result)
  local read = reader_of(result.body)
  local pieces
  if kinds[fault.kind] then
    pieces = after_chunks(fault, read)
  else
    pieces = spoil.pieces(fault, read)
  end
  if pieces then result.body = pieces end
  return result
end

local function closed(result)
  if result and result.close then result.close() end
end

-- Answers with the fault where it needs no real answer; nil where it does.
local function instead(fault, handler, request)
  local status, headers, body = spoil.answer(fault)
  local resets = fault.kind == "refuse" or (fault.kind == "reset" and not fault.bytes)
  if not status and not resets then return nil end
  if fault.after then closed(handler(request)) end
  if resets then return reset(request) end
  return { status = status, headers = headers, body = body }
end

local function wait(fault)
  if fault.kind == "delay" then
    task.sleep(fault.seconds)
  elseif fault.kind == "stall" and not fault.bytes then
    task.sleep(fault.seconds or math.huge)
  end
end

local function answer(fault, handler, request)
  if fault.kind == "deployment" then
    request.deployment = fault
    return handler(request)
  end
  local result = instead(fault, handler, request)
  if result then return result end
  if not fault.after then wait(fault) end
  local err
  result, err = handler(request)
  if not result then return result, err end
  if fault.after then wait(fault) end
  return spoiled(fault, result)
end

---Answers a request with the fault that it is to meet, or by its handler. The control path is spared.
---@param handler fun(request: table): any, any
---@param request sluice.web.Request
---@return any
---@return any err
function methods:handle(handler, request)
  if self.count == 0 or request.path:find("^/emulator/") then return handler(request) end
  local fault = self.rules:match(request, endpoint_of(request))
  if not fault then return handler(request) end
  return answer(fault, handler, request)
end

---Answers for a served entity with the fault that it is to meet, or by its handler: a version that is slow or fails.
---@param handler fun(request: table): any, any
---@param request sluice.web.Request
---@param endpoint string
---@param served_entity string
---@return any
---@return any err
function methods:serve(handler, request, endpoint, served_entity)
  local fault = self.count > 0 and self.rules:match(request, endpoint, served_entity)
  if not fault then return handler(request) end
  return answer(fault, handler, request)
end

---Makes an in-process client see a reset as an err, where a socket would be cut.
---@param app table the web app
function faults.guard(app)
  local handle = app.handle
  app.handle = function(self, request)
    local ok, res, err = pcall(handle, self, request)
    if ok then return res, err end
    if errors.is(res) and res.is_reset then
      local message = "the connection was reset by a fault rule"
      return nil, errors.new("ConnectError", { message = message, maybe_executed = true, retryable = true })
    end
    error(res, 0)
  end
end

return faults
