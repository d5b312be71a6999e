-- SPDX-License-Identifier: MIT
-- The routes of signing in: the workspace's settings, OAuth discovery, tokens, and the page for people.

local answers = require "sluice.emulator.routes.answers"
local json = require "sluice.json"
local secret = require "sluice.secret"
local router = require "sluice.web.router"
local wire = require "sluice.emulator.wire"

local login = {}

local page <const> = "<!DOCTYPE html>\n<html><head><title>Sign in to the emulator</title></head>\n"
  .. "<body><pre>This is where people sign in.</pre></body></html>\n"

local function form_of(request)
  local form = {}
  for _, pair in ipairs(router.parse_query(request:text() or "")) do form[pair[1]] = pair[2] end
  return form
end

-- Clients look here first for the workspace's settings, without a token.
local function add_discovery(app, emulator)
  app:get("/.well-known/databricks-config", function(request)
    local base = answers.base_of(emulator, request)
    return answers.of {
      oidc_endpoint = base .. "/oidc",
      account_id = "00000000-0000-4000-8000-000000000001",
      workspace_id = wire.workspace_id,
      cloud = "aws",
      host_type = "workspace",
    }
  end)
  app:get("/oidc/.well-known/oauth-authorization-server", function(request)
    local base = answers.base_of(emulator, request) .. "/oidc"
    return answers.of {
      issuer = base,
      authorization_endpoint = base .. "/v1/authorize",
      token_endpoint = base .. "/v1/token",
      grant_types_supported = json.array {
        "client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer",
      },
      token_endpoint_auth_methods_supported = json.array { "client_secret_basic", "client_secret_post" },
    }
  end)
end

---Adds the routes.
---@param app table a sluice.web app
---@param emulator table
function login.add(app, emulator)
  add_discovery(app, emulator)
  app:post("/oidc/v1/token", function(request)
    local header = secret.reveal(request.headers.authorization)
    local answer, refusal = emulator.oauth:grant(form_of(request), header)
    if not answer then return refusal end
    return { status = 200, headers = { ["cache-control"] = "no-store" }, json = answer }
  end)
  app:get("/login.html", function()
    return { status = 200, headers = { ["content-type"] = "text/html; charset=utf-8" }, body = page }
  end)
end

return login
