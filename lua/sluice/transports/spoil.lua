-- SPDX-License-Identifier: MIT
-- What a fault makes of an answer: one of its own instead, or the pieces of the real one, spoilt.

local errors = require "sluice.errors"
local json = require "sluice.json"
local task = require "sluice.task"

local spoil = {}

local PAGE <const> = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n"
  .. "<body><h1>Sign in</h1><form method=\"post\"><input name=\"user\"></form></body></html>\n"
local HALF <const> = '{"id": "chatcmpl-0", "choices": [{"message": {"role": "assistant", "content": "The riv'

local function with_type(fault, content_type)
  local fields = {}
  for name, value in pairs(fault.headers or {}) do fields[name:lower()] = value end
  fields["content-type"] = fields["content-type"] or content_type
  return fields
end

local answers = {}

function answers.status(fault)
  if fault.json ~= nil then
    return fault.status, with_type(fault, "application/json"), json.encode(fault.json)
  end
  return fault.status, with_type(fault, fault.body and "text/plain"), fault.body or ""
end

function answers.html(fault)
  return fault.status or 200, with_type(fault, "text/html; charset=utf-8"), fault.body or PAGE
end

function answers.bad_json(fault)
  return 200, with_type(fault, "application/json"), fault.body or HALF
end

---The answer that a fault gives instead of the real one: of the kinds "status", "html" and "bad_json".
---@param fault sluice.FaultRule
---@return integer? status nil for the other kinds
---@return table? headers
---@return string? body
function spoil.answer(fault)
  local make = answers[fault.kind]
  if not make then return nil end
  return make(fault)
end

-- Gives the bytes of `read` in pieces of the sizes that `size_of()` says one after the other.
local function in_sizes(read, size_of)
  local kept, at, ended, failure = "", 1, false, nil
  return function()
    local size = size_of()
    while #kept - at + 1 < size and not ended do
      local piece, err = read()
      if piece then
        kept, at = kept:sub(at) .. piece, 1
      else
        ended, failure = true, err
      end
    end
    if at > #kept then return nil, failure end
    local piece = kept:sub(at, at + size - 1)
    at = at + #piece
    return piece
  end
end

-- The first `bytes` of what `read` gives, as it comes; then what `at_end(rest)` gives, where `rest`
-- reads on.
local function first_bytes(read, bytes, at_end)
  local left, over = bytes, nil
  local function rest()
    local piece = over
    over = nil
    if piece then return piece end
    return read()
  end
  return function()
    if left == 0 then return at_end(rest) end
    local piece, err = read()
    if not piece then return nil, err end
    if #piece > left then piece, over = piece:sub(1, left), piece:sub(left + 1) end
    left = left - #piece
    return piece
  end
end

local function always(size)
  return function() return size end
end

local function cut()
  local message = "the connection was cut by a fault rule"
  return nil, errors.new("TruncatedStream", { message = message, phase = "body" })
end

local function clean_end()
  return nil
end

-- Pieces a second of a drip that is given in bytes per second.
local DRIPS = 10

local makers = {}

function makers.drip(fault, read, sleep)
  local pause, size = fault.pause, fault.size
  if fault.bytes_per_second then
    size = math.max(1, fault.bytes_per_second // DRIPS | 0)
    pause = size / fault.bytes_per_second
  end
  local pieces = size and in_sizes(read, always(size)) or read
  return function()
    local piece, err = pieces()
    if not piece then return nil, err end
    local slept, late = sleep(pause)
    if slept == nil and late then return nil, late end
    return piece
  end
end

function makers.split(fault, read)
  if fault.size then return in_sizes(read, always(fault.size)) end
  local sizes, index = fault.sizes, 0
  return in_sizes(read, function()
    index = index % #sizes + 1
    return sizes[index]
  end)
end

function makers.truncate(fault, read)
  return first_bytes(read, fault.bytes, fault.clean and clean_end or cut)
end

function makers.reset(fault, read)
  return fault.bytes and first_bytes(read, fault.bytes, cut)
end

function makers.stall(fault, read, sleep)
  if not fault.bytes then return nil end
  local stalled = false
  return first_bytes(read, fault.bytes, function(rest)
    if not stalled then
      stalled = true
      local slept, late = sleep(fault.seconds or math.huge)
      if slept == nil and late then return nil, late end
    end
    return rest()
  end)
end

---The pieces of a body as a fault lets them through: of "drip", "split", "truncate", and of "reset" and
---"stall" with `bytes`.
---@param fault sluice.FaultRule
---@param read fun(): string?, sluice.Error? the next piece of the real body, nil at its end; it may wait
---@param sleep? fun(seconds: number): any, sluice.Error? how to wait; nil and err end the body
---@return (fun(): string?, sluice.Error?)? read nil for the other kinds, which leave the body as it is
function spoil.pieces(fault, read, sleep)
  local make = makers[fault.kind]
  return make and make(fault, read, sleep or task.sleep)
end

return spoil
