-- SPDX-License-Identifier: MIT
-- For the specs of the HTTP client: raw servers that behave as told, a ticking task, descriptors.

local socket = require "sluice.core.socket"
local task = require "sluice.task"

local helper = {}

local group
local opened = {} -- listeners and connections: a task that is cancelled before it runs closes nothing

---A listener on a free port whose connections are each given to `handle(connection, number)` in a
---task of its own. Gone after helper.stop().
function helper.serve(handle)
  local listener = assert(socket.listen("127.0.0.1", 0))
  group = group or task.group()
  opened[#opened + 1] = listener
  local server = { port = listener.port, accepted = 0, base = "http://127.0.0.1:" .. listener.port }
  group:spawn(function()
    while true do
      local connection = listener:accept()
      if not connection then return end
      server.accepted = server.accepted + 1
      opened[#opened + 1] = connection
      group:spawn(function(number)
        local _ <close> = connection
        handle(connection, number)
      end, server.accepted)
    end
  end)
  return server
end

---A server that answers whatever it reads with these bytes and closes.
function helper.serve_bytes(bytes)
  return helper.serve(function(connection)
    connection:read()
    if bytes ~= "" then connection:write(bytes) end
  end)
end

---Closes every server and its connections.
function helper.stop()
  if group then group:close() end
  for _, socket_like in ipairs(opened) do socket_like:close() end
  group, opened = nil, {}
end

---Reads one request whole; nil at the end of the connection. Gives the head, the body and what came behind.
function helper.read_request(connection, rest)
  local bytes, stop = rest or ""
  while true do
    stop = select(2, bytes:find("\r\n\r\n", 1, true))
    if stop then break end
    local piece = connection:read()
    if not piece then return nil end
    bytes = bytes .. piece
  end
  local head = bytes:sub(1, stop)
  local length = tonumber(head:lower():match("\r\ncontent%-length: *(%d+)")) or 0
  local pieces, size = { bytes:sub(stop + 1) }, #bytes - stop
  while size < length do
    local piece = connection:read()
    if not piece then return nil end
    pieces[#pieces + 1], size = piece, size + #piece
  end
  local body = table.concat(pieces)
  return head, body:sub(1, length), body:sub(length + 1)
end

---An answer with a length.
function helper.answer(body, head)
  return ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s"):format(#body, head or "", body)
end

---A server that keeps connections and answers each request with what `answer(head, body)` gives.
function helper.serve_requests(answer)
  return helper.serve(function(connection, number)
    local rest = ""
    while true do
      local head, body
      head, body, rest = helper.read_request(connection, rest)
      if not head then return end
      if not connection:write(answer(head, body, number)) then return end
    end
  end)
end

---How many descriptors the process has.
function helper.descriptors()
  local stat = assert(io.open("/proc/self/stat"))
  local pid = stat:read("n")
  stat:close()
  local list = assert(io.popen("ls /proc/" .. pid .. "/fd | wc -l"))
  local count = list:read("n")
  list:close()
  return count
end

---Fails when there are more descriptors than before. Fewer may be: what others left behind is collected.
function helper.check_descriptors(before)
  local now = helper.descriptors()
  if now > before then error(("%d descriptors before, %d now"):format(before, now), 2) end
end

-- Seconds that a turn of the loop may take: what blocks it (a name's resolver, a handshake) takes several.
local LONGEST_TURN <const> = os.getenv "SLUICE_SLOW" and 2 or 1

---Calls f while a task beside it ticks each millisecond; fails when the ticks stood still.
function helper.ticking(f, ...)
  local done, longest, ticks = false, 0, 0
  local ticker = task.spawn(function()
    while not done do
      local before = task.now()
      task.sleep(0.001)
      ticks = ticks + 1
      longest = math.max(longest, task.now() - before)
    end
  end)
  local results = table.pack(f(...))
  done = true
  ticker:join()
  if longest > LONGEST_TURN then error(("the loop stood still for %.3f s"):format(longest), 2) end
  return table.unpack(results, 1, results.n)
end

---Waits until `test()` holds; fails after two seconds (ten with the sanitizers).
function helper.wait_until(test)
  local limit = os.getenv "SLUICE_SLOW" and 10 or 2
  local started = task.now()
  while not test() do
    if task.now() - started > limit then error("it did not happen within the limit", 2) end
    task.sleep(0.001)
  end
end

return helper
