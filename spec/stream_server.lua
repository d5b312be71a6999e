-- SPDX-License-Identifier: MIT
-- Raw servers that answer with an event stream as told, for specs of streams.

local helper = require "http_helper"
local task = require "sluice.task"

local server = {}

local HEAD <const> = "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n%s\r\n"

---One piece in the chunked coding.
function server.chunk(piece)
  return ("%x\r\n%s\r\n"):format(#piece, piece)
end

---Writes pieces as chunks: a string is sent, a number is slept, `false` cuts the connection, a function
---is called with the connection. True where the answer was ended in order.
function server.write(connection, pieces)
  for _, piece in ipairs(pieces) do
    if piece == false then
      connection:reset()
      return false
    elseif type(piece) == "number" then
      task.sleep(piece)
    elseif type(piece) == "function" then
      piece(connection)
    elseif not connection:write(server.chunk(piece)) then
      return false
    end
  end
  return connection:write "0\r\n\r\n"
end

---A server that answers each request with what `pieces_of(head, body, number)` gives: pieces, and an
---optional type and further header lines.
function server.start(pieces_of)
  return helper.serve(function(connection)
    local rest, number = "", 0
    while true do
      local head, body
      head, body, rest = helper.read_request(connection, rest)
      if not head then return end
      number = number + 1
      local pieces, kind, fields = pieces_of(head, body, number)
      if not connection:write(HEAD:format(kind or "text/event-stream", fields or "")) then return end
      if not server.write(connection, pieces) then return end
    end
  end)
end

---A chat chunk as an event.
function server.delta(content, finish)
  local reason = finish and ('"%s"'):format(finish) or "null"
  local delta = content and ('{"content":"%s"}'):format(content) or "{}"
  return ('data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m",'
    .. '"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}\n\n'):format(delta, reason)
end

server.DONE = "data: [DONE]\n\n"

return server
