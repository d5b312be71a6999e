-- SPDX-License-Identifier: MIT
-- The access log: a line of sluice.log for each request.

local log = require "sluice.log"

local access = {}

-- Nothing was answered: the client left first, or the server closed.
local CLOSED = 499

local function milliseconds(seconds)
  return math.floor(seconds * 1e6 + 0.5) / 1e3
end

---Logs a request that a handler answered, or was about to. Does not wait.
---@param request sluice.web.Request
---@param remote string?
---@param status integer? nil where no answer began
---@param bytes integer of the answer's body
---@param seconds number from the end of the request's head to the end of the answer
---@param complete boolean
function access.log(request, remote, status, bytes, seconds, complete)
  log.info("request", {
    method = request.method,
    path = request.path,
    status = status or CLOSED,
    bytes = bytes,
    duration_ms = milliseconds(seconds),
    request_id = request.id,
    remote = remote,
    cut = status and not complete or nil,
  })
end

---Logs a request that ended before a handler saw it. Does not wait.
---@param note table from listener:refused()
---@param lost integer how many more there were since the last one, of which nothing is known
function access.log_refused(note, lost)
  log.info("request", {
    method = note.method,
    path = note.path,
    status = note.status,
    bytes = note.bytes,
    duration_ms = milliseconds(note.seconds),
    request_id = note.id,
    remote = note.remote,
    not_logged = lost > 0 and lost or nil,
  })
end

return access
