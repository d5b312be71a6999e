-- SPDX-License-Identifier: MIT
-- What the specs of the emulator share: an emulator in process, and how to call it.

local assert = require "luassert"
local emulator = require "sluice.emulator"
local json = require "sluice.json"

local caller = {}

---The path of the management API.
caller.management = "/api/2.0/serving-endpoints"

---A served entity of main.default.
function caller.entity(name, more)
  local served = { entity_name = "main.default." .. name, entity_version = "1" }
  for key, value in pairs(more or {}) do served[key] = value end
  return served
end

---A function(method, path, body, headers) -> response of an emulator, and the emulator.
function caller.start(options)
  local emulated = assert(emulator.new(options))
  local function call(method, path, body, headers)
    return emulated.app:handle {
      method = method,
      path = path,
      headers = headers or { authorization = "Bearer any", host = "emulator.test" },
      body = type(body) == "table" and json.encode(body) or body,
    }
  end
  return call, emulated
end

---Creates an endpoint; `more` are further keys of the request.
function caller.create(call, name, entities, more)
  local body = { name = name, config = { served_entities = entities } }
  for key, value in pairs(more or {}) do body[key] = value end
  local res = call("POST", caller.management, body)
  assert.equal(200, res.status, res.body)
  return res:json()
end

---Asserts that an answer is a refusal in the service's shape.
function caller.refused(res, status, code, part)
  local body = res:json()
  assert.equal(status, res.status, res.body)
  assert.equal(code, body.error_code)
  assert.is_string(body.message)
  if part then assert.is_truthy(body.message:find(part, 1, true), body.message) end
  return body
end

---A chat request.
function caller.chat(content, more)
  local body = { messages = { { role = "user", content = content } } }
  for key, value in pairs(more or {}) do body[key] = value end
  return body
end

---The events of a stream's bytes: decoded, but for the end mark.
function caller.events(body)
  local events = {}
  for data in body:gmatch "data: (.-)\n\n" do events[#events + 1] = json.decode(data) or data end
  return events
end

return caller
