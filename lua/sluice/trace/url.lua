-- SPDX-License-Identifier: MIT
-- The parts of a URL that a span has: without user, password, query and fragment.

local url = {}

---The address and the port of "host:port" or "[v6]:port".
---@param authority any
---@return string? address
---@return integer? port
function url.authority(authority)
  if type(authority) ~= "string" then return nil end
  local address, port = authority:match "^(.-):(%d+)$"
  if not address or address:find ":" and not address:find "^%[" then return authority end
  return (address:gsub("^%[(.*)%]$", "%1")), math.tointeger(tonumber(port))
end

local PORTS <const> = { http = 80, https = 443 }

---The URL as it may be shown, and where it leads.
---@param text string
---@return string shown
---@return string? address
---@return integer? port
function url.parts(text)
  local shown = text:gsub("[?#].*$", ""):gsub("^(%a[%w+.-]*://)[^/]*@", "%1")
  local scheme, authority = shown:match "^(%a+)://([^/]+)"
  local address, port = url.authority(authority)
  return shown, address, port or scheme and PORTS[scheme:lower()]
end

return url
