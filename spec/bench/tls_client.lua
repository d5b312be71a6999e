-- SPDX-License-Identifier: MIT
-- Asks one server so many times, each on a connection of its own: tls_client.lua URL CA_FILE COUNT
-- Prints milliseconds of processor time a request; the first one, which reads the authorities, apart.

local http = require "sluice.http"

local url, ca_file, count = arg[1], arg[2], tonumber(arg[3])
local client = http.client { ca_file = ca_file }

local function ask()
  assert(client:request { url = url, headers = { Connection = "close" } })
end

local start = os.clock()
ask()
local first = os.clock() - start
start = os.clock()
for _ = 1, count do ask() end
print(("first %.3f\ncpu %.3f"):format(first * 1e3, (os.clock() - start) / count * 1e3))
