-- SPDX-License-Identifier: MIT
-- A transport that records what passes through it, and replays it offline as it came: in the same pieces and time.

local bounds = require "sluice.transports.bounds"
local errors = require "sluice.errors"
local headers = require "sluice.headers"
local matcher = require "sluice.transports.matcher"
local message = require "sluice.transports.message"
local options = require "sluice.options"
local recorder = require "sluice.transports.recorder"
local redact = require "sluice.transports.redact"
local response = require "sluice.response"
local tape = require "sluice.transports.tape"

---@class sluice.Cassette: sluice.Transport
---@field path string
---@field mode string
---@field recorded integer exchanges written so far
---@field replayed integer exchanges replayed so far
local methods = {}
local metatable = { __name = "sluice.transports.cassette", __index = methods }

local function is_mode(value)
  return value == "record" or value == "replay" or value == "auto", '"record", "replay" or "auto"'
end

local function is_timing(value)
  local is_factor = type(value) == "number" and value >= 0 and value < 1e6
  return is_factor or value == "recorded" or value == "none", '"recorded", "none" or a factor'
end

---@class sluice.CassetteOptions
---@field path string the file: JSON lines
---@field mode? string "record" writes it anew, "replay" sends nothing, "auto" (the default) records what is not in it
---@field inner? sluice.Transport what is recorded; the HTTP client that the program shares
---@field timing? string|number "recorded" (the default), "none", or a factor of the recorded times
---@field redact? string[]|fun(text: string): string more names of fields whose values are not written; or a function that changes each text that is written, and each request before it is compared
---@field ignore? string[] names of JSON fields of a request that are not compared
local CASSETTE = {
  path = "name", mode = is_mode, inner = "table|userdata?", timing = is_timing, redact = "table|callable?",
  ignore = "table?",
}

local FACTORS = { recorded = 1, none = 0 }

local function failure(self, text)
  return nil, errors.new("CassetteError", {
    operation = self.mode .. " cassette", object = self.path, message = text,
  })
end

-- The content of the file; nil and an err, or nil alone where there is none.
local function read_file(self)
  local file, text, code = io.open(self.path, "rb")
  if not file then
    if code == 2 then return nil end -- ENOENT
    return failure(self, text)
  end
  local content, problem = file:read "a"
  file:close()
  if not content then return failure(self, problem) end
  return content
end

local function load_records(self)
  if self.mode == "record" then return {} end
  local content, err = read_file(self)
  if err then return nil, err end
  if not content then
    if self.mode == "auto" then return {} end
    return failure(self, "there is no such file: record it first, with mode = \"record\" or \"auto\"")
  end
  if content == "" and self.mode == "auto" then return {} end
  return tape.parse(self.path, content)
end

local function highest(records)
  local n = 0
  for _, record in ipairs(records) do n = math.max(n, record.n) end
  return n
end

local function open_recorder(self, records)
  if self.mode == "replay" then return true end
  local append = self.mode == "auto" and #records > 0
  local file, text = io.open(self.path, append and "ab" or "wb")
  if not file then return failure(self, text) end
  if not append then file:write(tape.head(), "\n"):flush() end
  self._recorder = recorder.new(file, self._redactor, highest(records), function()
    self.recorded = self.recorded + 1
  end)
  return true
end

-- At the first request: the errors of a file are those of a request then.
local function open(self)
  if self._matcher then return true end
  local records, err = load_records(self)
  if not records then return nil, err end
  self._redactor = redact.new(self._redact)
  local good
  good, err = open_recorder(self, records)
  if not good then return nil, err end
  self._matcher = matcher.new(records, self._ignore)
  return true
end

local function read_body(body)
  if type(body) ~= "function" and type(body) ~= "table" then return body end
  local pieces = {}
  while true do
    local piece, err = body()
    if piece == nil and err ~= nil then return nil, err end
    if piece == nil then return table.concat(pieces) end
    pieces[#pieces + 1] = piece
  end
end

-- Waits until a time of the recording.
local function wait_until(self, bound, phase, seconds)
  local due = bound.started + seconds * self._factor
  local now = require("sluice.task").now()
  if due <= now then return true end
  return bound:sleep(phase, due - now)
end

local function recorded_error(bound, record)
  local fields = {}
  for name, value in pairs(record.error) do
    if name ~= "kind" and name ~= "operation" and name ~= "object" then fields[name] = value end
  end
  return bound:error(record.error.kind, fields)
end

-- How a recording ends that did not come to its end.
local function recorded_end(self, bound, record)
  if record.outcome == "failed" then return recorded_error(bound, record) end
  return bound:error("CassetteError", {
    message = ("the recording in line %d of %s ends here, after %d bytes: its reader left"):format(
      record.line, self.path, bound.bytes),
  })
end

local function piece_reader(self, bound, record)
  local pieces, index = record.response.pieces, 0
  return function()
    index = index + 1
    local piece = pieces[index]
    local waited, late = wait_until(self, bound, "body", piece and piece[1] or record.ended)
    if not waited then return nil, late end
    if piece then return piece[2] end
    if record.outcome ~= "whole" then return nil, recorded_end(self, bound, record) end
    return nil
  end
end

local function replay(self, record, request)
  self.replayed = self.replayed + 1
  local bound = bounds.start("cassette:handle", request)
  local head = record.response
  local waited, late = wait_until(self, bound, "head", head and head.at or record.ended)
  if not waited then return nil, late end
  if not head then return nil, recorded_end(self, bound, record) end
  local inner = response.new {
    status = head.status, reason = head.reason, headers = headers.new(head.headers), body = "",
  }
  local facts = { cassette = { path = self.path, line = record.line } }
  return bound:respond(inner, request.stream, piece_reader(self, bound, record), facts)
end

-- The request as it is written and compared.
local function shown(self, request)
  local redactor = self._redactor
  local list = redactor:headers(headers.list(request.headers))
  return {
    method = request.method,
    url = redactor:url(request.url or request.path),
    headers = list,
    body = request.body and redactor:text(request.body, request.headers["content-type"]) or nil,
  }
end

---Carries a request, or gives what was recorded for it; which of both, the mode says. A request that was
---not recorded is a CassetteError that names the nearest one. Recording reads the body of a response only
---as its reader does; one that is closed before its end is recorded as aborted. Waits.
---@param given sluice.HttpRequest
---@return sluice.Response? response
---@return sluice.Error? err
function methods:handle(given)
  local request = message.normal("cassette:handle", given)
  local opened, err = open(self)
  if not opened then return nil, err end
  request.body, err = read_body(request.body)
  if err ~= nil then return nil, err end
  local asked = shown(self, request)
  if self.mode ~= "record" then
    local record, reason = self._matcher:find(asked)
    if record then return replay(self, record, request) end
    if self.mode == "replay" then return failure(self, reason) end
  end
  if not self.inner then self.inner = require "sluice.http" end
  return self._recorder:record(self.inner, request, asked)
end

---Writes what is under way as aborted and closes the file. Idempotent; the next request opens it again.
function methods:close()
  if self._recorder then self._recorder:close() end
  self._recorder, self._matcher = nil, nil
end

function metatable.__close(self)
  self:close()
end

---Makes the transport. The file is opened at the first request.
---@param given sluice.CassetteOptions
---@return sluice.Cassette
local function cassette(given)
  given = options.check("transports.cassette", given, CASSETTE)
  if given.inner and type(given.inner.handle) ~= "function" then
    options.misuse "transports.cassette: inner is no transport: it has no method handle"
  end
  local timing = given.timing or "recorded"
  return setmetatable({
    path = given.path,
    mode = given.mode or "auto",
    inner = given.inner,
    recorded = 0, replayed = 0,
    _factor = FACTORS[timing] or timing,
    _redact = given.redact,
    _ignore = given.ignore,
  }, metatable)
end

return cassette
