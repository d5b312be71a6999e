-- SPDX-License-Identifier: MIT
-- What wrk sends to a gateway and how it reports, for gateway.lua. Run by wrk's own Lua.
-- luacheck: globals wrk done

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer any"
wrk.headers["x-portkey-provider"] = "openai"
wrk.headers["x-portkey-custom-host"] = os.getenv "UPSTREAM"
wrk.body = '{"model":"m","messages":[{"role":"system","content":"You are a terse assistant that answers in '
  .. 'one sentence of plain words."},{"role":"user","content":"What is a sluice, and why would somebody give '
  .. 'that name to a program that sends requests to model endpoints?"}],"temperature":0.7,"max_tokens":128,'
  .. '"stream":false}'

function done(summary)
  local errors = summary.errors
  io.write(("requests %d\nmicroseconds %d\nfailed %d\n"):format(summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
