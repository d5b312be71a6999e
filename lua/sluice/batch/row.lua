-- SPDX-License-Identifier: MIT
-- One row of a batch: from a line to a request, and from an answer to a line.

local errors = require "sluice.errors"
local json = require "sluice.json"

local row = {}

local NULL <const> = json.null

local function malformed(number, message, cause)
  return errors.new("MalformedRow", { message = ("row %d %s"):format(number, message), cause = cause })
end

local ARRAY <const> = json.array_mt
local getmetatable, type = getmetatable, type

local function is_object(value)
  return type(value) == "table" and getmetatable(value) ~= ARRAY
end

-- A line of OpenAI's batch files: { custom_id, method, url, body }.
local function open_envelope(number, value)
  local method = value.method
  if method ~= nil and method ~= NULL and method ~= "POST" then
    return nil, malformed(number, ("asks for the method %q; only POST is known"):format(tostring(method)))
  end
  if not is_object(value.body) then return nil, malformed(number, "has a body that is no JSON object") end
  return value.body
end

local function is_envelope(value)
  return value.custom_id ~= nil or value.url ~= nil or value.method ~= nil
end

local function copy_of(value)
  local copy = {}
  for name, each in next, value do copy[name] = each end
  return copy
end

-- The names that are ours are taken out of the request: of the caller's own table in a copy.
local function of_object(number, value, is_own)
  local custom, id = value.custom_id, value.id
  if custom == nil and id == nil and value.body == nil then return value end
  if value.body ~= nil and is_envelope(value) then
    local request, err = open_envelope(number, value)
    return request, custom ~= nil and custom or id, err
  end
  if not is_own then value = copy_of(value) end
  value.id, value.custom_id = nil, nil
  return value, custom ~= nil and custom or id
end

---Reads a row: a line of JSON, or a table as it would stand there.
---@param number integer
---@param item any false: a line that was too long; an err: of a row that cannot be asked, its id as `row_id`
---@return table? request
---@return any id what the row calls itself; nil for nothing
---@return sluice.Error? err of a row that is no request
function row.read(number, item)
  if type(item) == "string" then
    local value, err = json.decode(item)
    if value == nil then return nil, nil, malformed(number, "is no JSON: " .. err.message, err) end
    if not is_object(value) then return nil, nil, malformed(number, "is no JSON object") end
    return of_object(number, value, true)
  end
  if item == false then return nil, nil, malformed(number, "is longer than max_line allows") end
  if errors.is(item) then return nil, item.row_id, item end
  if not is_object(item) then return nil, nil, malformed(number, "is no table, but a " .. type(item)) end
  return of_object(number, item, false)
end

local function encode_id(id)
  if id == nil then return "null" end
  if math.type(id) == "integer" then return tostring(id) end
  local ok, text = pcall(json.encode, id)
  return ok and text or "null"
end

---The line of a row that failed.
---@param number integer
---@param id any
---@param err sluice.Error
---@return string
function row.error_line(number, id, err)
  local text = json.encode(errors.to_table(err))
  return '{"row":' .. number .. ',"id":' .. encode_id(id) .. ',"error":' .. text .. "}\n"
end

---The line of an answer.
---@param number integer
---@param id any
---@param response table
---@return string line
---@return sluice.Error? err of an answer that JSON cannot hold: then the line tells that
function row.answer_line(number, id, response)
  local ok, text = pcall(json.encode, response)
  if ok then return '{"row":' .. number .. ',"id":' .. encode_id(id) .. ',"response":' .. text .. "}\n" end
  local err = errors.new("EndpointRaised", { message = "an answer that is no JSON: " .. tostring(text) })
  return row.error_line(number, id, err), err
end

---What a line of an output says; nil where it is none of ours.
---@param line string without its newline
---@return table? parsed with `row`, `id`, and `response` or `error`
function row.parse(line)
  if line:sub(1, 7) ~= '{"row":' then return nil end
  local value = json.decode(line)
  if not value or math.type(value.row) ~= "integer" or value.row < 1 then return nil end
  if not is_object(value.error) and value.response == nil then return nil end
  return value
end

return row
