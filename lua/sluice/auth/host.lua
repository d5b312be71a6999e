-- SPDX-License-Identifier: MIT
-- The address of a workspace as people write it: without a scheme, with the path and query of a browser.

local client = require "sluice.endpoints.client"
local url = require "sluice.url"

local host = {}

-- What the query of an address that was copied from a browser may tell, by the names it is given there.
local QUERY <const> = {
  o = "workspace_id", w = "workspace_id", workspace_id = "workspace_id",
  a = "account_id", account_id = "account_id",
}

local function read_query(text)
  local found = {}
  for name, value in text:gmatch "[?&]([%w_]+)=([^&#]*)" do
    value = url.decode(value)
    -- they are sent in a header field: nothing but what ids are made of
    if QUERY[name] and value:find "^[%w-]+$" then found[QUERY[name]] = value end
  end
  return found
end

---Brings an address to `scheme://authority`. Never waits.
---@param text string
---@return { base: string, authority: string, workspace_id: string?, account_id: string? }? address
---@return string? reason
function host.parse(text)
  text = text:match "^%s*(.*%S)" or ""
  if not text:find("://", 1, true) then text = "https://" .. text end
  local base, authority = client.parse_base((text:gsub("[?#].*$", "")))
  if not base then return nil, authority end
  local scheme = base:match "^(%a+)://"
  if scheme == "https" then authority = authority:gsub(":443$", "") end
  if not authority:find "^[^:]" or authority:find "%[%]" then return nil, "it names no host" end
  local address = read_query(text:match "%?.*$" or "")
  address.base, address.authority = scheme .. "://" .. authority, authority
  return address
end

---Whether the authority is this machine's own.
---@param authority string
---@return boolean
function host.is_loopback(authority)
  local name = authority:match("^%[(.*)%]") or authority:match("^[^:]*")
  return name == "localhost" or name == "::1" or name:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

return host
