-- SPDX-License-Identifier: MIT
-- The file of a cassette: JSON lines, the first of which tells the version, then one for each exchange.

local base64 = require "sluice.base64"
local errors = require "sluice.errors"
local json = require "sluice.json"

local tape = {}

local VERSION <const> = 1

---One exchange.
---@class sluice.cassette.Record
---@field n integer its place in the order in which requests began
---@field line integer? where it is in the file
---@field request { method: string, url: string, headers: string[][], body: string? }
---@field response { status: integer, reason: string, headers: string[][], at: number, pieces: table[] }? pieces: { seconds since the request, bytes }
---@field ended number seconds
---@field outcome "whole"|"aborted"|"failed"
---@field error table? of one that failed: kind, message, ...

local function problem(path, text, ...)
  return nil, errors.new("CassetteError", {
    operation = "read cassette", object = path, message = text:format(...),
  })
end

-- Bytes that are no UTF-8 are an object { base64 = ... }.
local function pack(bytes)
  if bytes == nil or utf8.len(bytes) then return bytes end
  return { base64 = base64.encode(bytes) }
end

local function unpack_bytes(value)
  if type(value) == "table" then value = type(value.base64) == "string" and base64.decode(value.base64) end
  return type(value) == "string" and value or nil
end

local function pack_record(record)
  local request, response = record.request, record.response
  local packed = {
    n = record.n, ended = record.ended, outcome = record.outcome, error = record.error,
    request = { method = request.method, url = request.url, headers = json.array(request.headers),
      body = pack(request.body) },
  }
  if response then
    local pieces = json.array {}
    for index, piece in ipairs(response.pieces) do pieces[index] = { piece[1], pack(piece[2]) } end
    packed.response = { status = response.status, reason = response.reason, at = response.at,
      headers = json.array(response.headers), pieces = pieces }
  end
  return packed
end

---The line of a record, without its newline.
---@param record sluice.cassette.Record
---@return string
function tape.line(record)
  return json.encode(pack_record(record), { canonical = true })
end

---The first line of a cassette, without its newline.
---@return string
function tape.head()
  local version = require("sluice").version
  return json.encode({ cassette = VERSION, made_by = "sluice " .. version }, { canonical = true })
end

local function is_list(value)
  return type(value) == "table" and (json.is_array(value) or next(value) == nil)
end

local function unpack_pieces(pieces)
  local list = {}
  for index, piece in ipairs(pieces) do
    local bytes = type(piece) == "table" and unpack_bytes(piece[2])
    if not bytes or type(piece[1]) ~= "number" then return nil end
    list[index] = { piece[1], bytes }
  end
  return list
end

local function unpack_response(response)
  if type(response) ~= "table" or math.type(response.status) ~= "integer" then return nil end
  if type(response.at) ~= "number" or not is_list(response.headers) or not is_list(response.pieces) then
    return nil
  end
  local pieces = unpack_pieces(response.pieces)
  return pieces and {
    status = response.status, reason = tostring(response.reason or ""), headers = response.headers,
    at = response.at, pieces = pieces,
  }
end

local OUTCOMES = { whole = true, aborted = true, failed = true }

-- The record of a decoded line; nil where it is none.
local function unpack_record(value, line)
  local request = type(value) == "table" and value.request
  if type(request) ~= "table" or type(request.method) ~= "string" or type(request.url) ~= "string" then
    return nil
  end
  if math.type(value.n) ~= "integer" or type(value.ended) ~= "number" or not OUTCOMES[value.outcome] then
    return nil
  end
  local response = value.response ~= nil and unpack_response(value.response) or nil
  local is_whole = value.outcome == "whole"
  if (value.response ~= nil or is_whole) and not response then return nil end
  if value.outcome == "failed" and (type(value.error) ~= "table" or type(value.error.kind) ~= "string") then
    return nil
  end
  return {
    n = value.n, line = line, ended = value.ended, outcome = value.outcome, error = value.error,
    request = { method = request.method, url = request.url, headers = request.headers,
      body = unpack_bytes(request.body) },
    response = response,
  }
end

local function check_head(path, text)
  local head = text and json.decode(text)
  if type(head) ~= "table" or head.cassette == nil then
    return problem(path, "line 1 is not that of a cassette")
  end
  if head.cassette ~= VERSION then
    return problem(path, "it has version %s, this program reads version %d", tostring(head.cassette), VERSION)
  end
  return true
end

local function read_line(path, text, number, is_last)
  local value, err = json.decode(text)
  if value == nil and is_last then
    return problem(path, "line %d, the last one, is cut in the middle: the recording was interrupted. "
      .. "Take the line out, or record again", number)
  end
  if value == nil then return problem(path, "line %d cannot be read: %s", number, err.message) end
  local record = unpack_record(value, number)
  if not record then return problem(path, "line %d is no record of an exchange", number) end
  return record
end

---The records of a cassette's text, in the order in which the requests began.
---@param path string for messages
---@param content string
---@return sluice.cassette.Record[]? records
---@return sluice.Error? err kind CassetteError
function tape.parse(path, content)
  local lines = {}
  for text in content:gmatch "[^\n]*" do lines[#lines + 1] = text end
  if lines[#lines] == "" then lines[#lines] = nil end
  local good, err = check_head(path, lines[1])
  if not good then return nil, err end
  local records = {}
  for number = 2, #lines do
    if lines[number] ~= "" then
      local is_last = number == #lines and content:sub(-1) ~= "\n"
      local record, wrong = read_line(path, lines[number], number, is_last)
      if not record then return nil, wrong end
      records[#records + 1] = record
    end
  end
  table.sort(records, function(a, b) return a.n == b.n and a.line < b.line or a.n < b.n end)
  return records
end

return tape
