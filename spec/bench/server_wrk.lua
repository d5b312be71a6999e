-- SPDX-License-Identifier: MIT
-- What wrk sends and how it reports, for server.lua: a chat of 300 bytes. Run by wrk's own Lua.
-- luacheck: globals wrk done

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"messages":[{"role":"system","content":"' .. ("You are a helpful assistant. "):rep(4)
  .. '"},{"role":"user","content":"' .. ("What is a sluice? "):rep(4)
  .. '"}],"temperature":0.7,"max_tokens":256,"stream":false}'

function done(summary)
  local errors = summary.errors
  io.write(("requests %d\nmicroseconds %d\nfailed %d\n"):format(summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
