-- SPDX-License-Identifier: MIT
-- A transport that fails by rule: refuses, resets, stalls, splits, cuts, or answers something else.

local bounds = require "sluice.transports.bounds"
local message = require "sluice.transports.message"
local meta = require "sluice.meta"
local options = require "sluice.options"
local response = require "sluice.response"
local rules = require "sluice.transports.rules"
local spoil = require "sluice.transports.spoil"

---@class sluice.Faults: sluice.Transport
---@field rules sluice.FaultRules to add to, to clear, and to read the counts of
local methods = {}
local metatable = { __name = "sluice.transports.faults", __index = methods }

---@class sluice.FaultsOptions
---@field inner? sluice.Transport where the rest goes; the HTTP client that the program shares
---@field rules? sluice.FaultRule[]
---@field seed? integer of the rules with a probability, 0
local FAULTS = { inner = "table|userdata?", rules = "table?", seed = "integer?" }

local function facts_of(fault)
  return { fault = { id = fault.id, kind = fault.kind } }
end

-- The answers of these kinds are not the real one.
local function replace(bound, fault, request)
  local status, fields, body = spoil.answer(fault)
  local made = response.new { status = status, headers = fields, body = body }
  local read = function() return made:read() end
  return bound:respond(made, request.stream, read, facts_of(fault))
end

local function broken(bound, fault, kind, fields)
  fields.message = ("%s (fault rule %d)"):format(fields.message, fault.id)
  return nil, meta.set(bound:error(kind, fields), facts_of(fault))
end

-- The real answer, spoilt where the fault is one of the body.
local function pass(bound, fault, request, res)
  local function sleep(seconds) return bound:sleep("body", seconds) end
  local function read() return res:read() end
  local spoilt = spoil.pieces(fault, read, sleep)
  if fault.kind == "truncate" and fault.clean then res.headers["content-length"] = nil end
  return bound:respond(res, request.stream, spoilt or read, facts_of(fault))
end

-- How a fault shows before there is an answer, or instead of one; nothing where the answer goes on.
local instead = {}

function instead.refuse(bound, fault)
  return broken(bound, fault, "ConnectError", { message = "connection refused", phase = "connect" })
end

function instead.reset(bound, fault)
  if fault.bytes then return nil end
  return broken(bound, fault, "ConnectError", {
    message = "connection reset before an answer", phase = "first_byte", maybe_executed = true,
  })
end

function instead.stall(bound, fault)
  if fault.bytes then return nil end
  local slept, err = bound:sleep("head", fault.seconds or math.huge)
  if not slept then return nil, err end
end

instead.delay = instead.stall

function instead.status(bound, fault, request)
  return replace(bound, fault, request)
end

instead.html, instead.bad_json = instead.status, instead.status

-- The work is done to its end, and what came of it is lost.
local function do_first(self, request)
  local res, err = self.inner:handle(request)
  if not res then return nil, err end
  local body
  body, err = res:text()
  if not body then return nil, err end
  return res
end

-- The answer, or nil and err, that a fault gives in its stead; nothing where the real one goes on.
local function act(bound, fault, request)
  local f = instead[fault.kind]
  if f then return f(bound, fault, request) end
end

local function spoil_after(self, bound, fault, request)
  local res, err = do_first(self, request)
  if not res then return nil, err end
  local made, failure = act(bound, fault, request)
  if made or failure then return made, failure end
  return pass(bound, fault, request, res)
end

local function spoil_before(self, bound, fault, request)
  local made, failure = act(bound, fault, request)
  if made or failure then return made, failure end
  local res, err = self.inner:handle(request)
  if not res then return nil, err end
  return pass(bound, fault, request, res)
end

---Carries a request, or lets it fail as the first rule that hits it says. `sluice.meta` of the response
---or the err has `fault = { id =, kind = }` then. What a fault takes counts for the request's time
---limits. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function methods:handle(given)
  if not self.inner then self.inner = require "sluice.http" end
  local request = message.normal("faults:handle", given)
  local fault = self.rules:match(request)
  if not fault then return self.inner:handle(given) end
  local bound = bounds.start("faults:handle", request)
  if fault.after then return spoil_after(self, bound, fault, request) end
  return spoil_before(self, bound, fault, request)
end

---Makes the transport. Rules can be added later: `transport.rules:add{...}`.
---@param given? sluice.FaultsOptions
---@return sluice.Faults
local function faults(given)
  given = options.check("transports.faults", given, FAULTS)
  if given.inner and type(given.inner.handle) ~= "function" then
    options.misuse "transports.faults: inner is no transport: it has no method handle"
  end
  return setmetatable({
    inner = given.inner,
    rules = rules.new(given.rules, { seed = given.seed }),
  }, metatable)
end

return faults
