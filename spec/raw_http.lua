-- SPDX-License-Identifier: MIT
-- A client that sends bytes as they are given and reads answers by the letter; for specs of the server.

local socket = require "sluice.core.socket"
local task = require "sluice.task"

local raw = {}
local methods = {}
local metatable = { __index = methods, __close = function(self) self:close() end }

---@param address string "127.0.0.1:PORT" or "unix:/path"
function raw.connect(address)
  local host, port = address:match("^%[?([%x.:]-)%]?:(%d+)$")
  local s, message
  if host then s, message = socket.connect(host, tonumber(port)) else s, message = socket.connect(address) end
  if not s then return nil, message end
  return setmetatable({ socket = s, buffer = "" }, metatable)
end

function methods:write(bytes)
  return self.socket:write(bytes)
end

-- Every byte by itself: the server runs between them.
function methods:drip(bytes)
  for index = 1, #bytes do
    if not self.socket:write(bytes:sub(index, index)) then return nil end
    task.sleep(0)
    task.sleep(0)
  end
  return true
end

-- More bytes into the buffer; false at the end.
function methods:fill()
  local piece, message = self.socket:read()
  if not piece then
    self.failure = message
    return false
  end
  self.buffer = self.buffer .. piece
  return true
end

function methods:take(count)
  local pieces, have = { self.buffer }, #self.buffer
  while have < count do
    self.buffer = ""
    if not self:fill() then
      self.buffer = table.concat(pieces)
      return nil
    end
    pieces[#pieces + 1] = self.buffer
    have = have + #self.buffer
  end
  local all = table.concat(pieces)
  self.buffer = all:sub(count + 1)
  return all:sub(1, count)
end

function methods:line()
  while true do
    local stop = self.buffer:find("\r\n", 1, true)
    if stop then return self:take(stop + 1):sub(1, -3) end
    if not self:fill() then return nil end
  end
end

-- All that comes until the server closes.
function methods:rest()
  local pieces = { self.buffer }
  self.buffer = ""
  while self:fill() do
    pieces[#pieces + 1] = self.buffer
    self.buffer = ""
  end
  return table.concat(pieces)
end

local function read_chunks(self)
  local pieces = {}
  while true do
    local line = self:line()
    local size = line and tonumber(line, 16)
    if not size then return nil, "bad chunk size " .. tostring(line) end
    if size == 0 then return self:line() == "" and table.concat(pieces) or nil, "bad last chunk" end
    local data = self:take(size)
    if not data or self:line() ~= "" then return nil, "bad chunk" end
    pieces[#pieces + 1] = data
  end
end

---One answer: { status, headers (lower case), body, early }; nil where the connection ended before it.
---@param method? string "HEAD" has no body
function methods:answer(method)
  local line = self:line()
  if not line then return nil end
  local status = tonumber(line:match("^HTTP/1%.1 (%d%d%d) "))
  if not status then return nil, "bad status line: " .. line end
  local headers = {}
  for field in function() return self:line() end do
    if field == "" then break end
    local name, value = field:match("^([%w-]+): (.*)$")
    headers[name:lower()] = value
  end
  if status == 100 then
    local answer, message = self:answer(method)
    if answer then answer.early = true end
    return answer, message
  end
  local body, message
  if method == "HEAD" or status == 204 or status == 304 then
    body = ""
  elseif headers["transfer-encoding"] then
    body, message = read_chunks(self)
  elseif headers["content-length"] then
    body = self:take(tonumber(headers["content-length"]))
  else
    body = self:rest()
  end
  if not body then return nil, message or "cut" end
  return { status = status, headers = headers, body = body }
end

-- Whether the server has closed in order, not by a reset, and nothing more came.
function methods:ended()
  return self:rest() == "" and self.failure == nil
end

function methods:close()
  self.socket:close()
end

function methods:reset()
  self.socket:reset()
end

return raw
