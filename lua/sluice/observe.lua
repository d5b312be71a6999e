-- SPDX-License-Identifier: MIT
-- Who is told of what the library does, for consoles and traces. Nobody, unless a program sets it.

local observe = {}

---Is told of each request over the wire when its answer, or the head of it, has come; false: nobody is. A
---request that is redirected is told of once, with its first answer. Must not wait.
---@type false|fun(method: string, url: string, response: sluice.Response?, err: sluice.Error?)
observe.on_request = false

return observe
