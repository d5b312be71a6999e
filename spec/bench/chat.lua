-- SPDX-License-Identifier: MIT
-- Small chats to a local nginx: 300 bytes out, 600 in, JSON both ways, one task each.

local chat = require "chat_body"
local nginx = require "nginx"
local process = require "process"

-- Each client prints the same figures, so that one line makes a contestant of a program.
local function client(name, words, missing)
  if missing then return { name = name, missing = missing } end
  return { name = name, run = function() return process.measure(words) end }
end

-- What libcurl leaves to reach: the same in C, with the engine of our codec and no Lua. `bare`: it
-- sends fewer header lines, and has neither limits of time nor the head of an answer.
local function c_clients(bench, arguments)
  local name = "C, libcurl"
  local program = process.compile_with_json(bench, "curl_peer", "-lcurl", "-lev")
  local missing = not program and "no C compiler"
  local bare = { program, table.unpack(arguments) }
  bare[#bare + 1] = "bare"
  return client(name, { program, table.unpack(arguments) }, missing), client(name .. ", bare", bare, missing)
end

local function python_client(bench, name, modules, script, ...)
  for _, program in ipairs { process.find "/usr/bin/python3", process.find "python3" } do
    if process.succeeds { program, "-c", "import " .. modules } then
      return client(name, { program, bench.here .. script, ... })
    end
  end
  return client(name, nil, "not installed")
end

local function node_client(bench, kind, arguments)
  local name, program = "node " .. kind, process.find("node", "nodejs")
  local missing = not program and "not installed"
  if program and kind == "undici" then
    local test = "require('module').createRequire(require('path').resolve(process.argv[1]) + '/')('undici')"
    missing = not process.succeeds { program, "-e", test, bench.here .. "../node/" }
      and "not installed (make node-packages)"
  end
  return client(name, { program, bench.here .. "chat_node.mjs", kind, table.unpack(arguments) }, missing)
end

-- Debian packages lua-http for older Luas, and all that it needs for 5.1 and 5.2.
local function lua_http_client(bench, arguments)
  local program = process.find("lua5.2", "lua5.1")
  local test = "require 'http.client' require 'cjson'"
  local missing = not (program and process.succeeds { program, "-e", test }) and "not installed"
  return client("lua-http", { program, bench.here .. "chat_lua_http.lua", table.unpack(arguments) }, missing)
end

local function opener(concurrency)
  return function(bench)
    if nginx.missing() then return { { name = "sluice", missing = nginx.missing() } } end
    local server = nginx.start(bench, chat.answer)
    local arguments = { server.url, tostring(concurrency), tostring(bench.seconds) }
    local in_nginx = nginx.client(bench, "nginx-lua cosockets", server.url, concurrency)
    local asyncio = "chat_asyncio.py"
    local in_c, bare = c_clients(bench, arguments)
    return {
      client("sluice", { bench.binary, bench.here .. "chat_client.lua", table.unpack(arguments) }),
      in_c,
      bare,
      python_client(bench, "requests, threads", "requests", "chat_requests.py", table.unpack(arguments)),
      python_client(bench, "aiohttp, uvloop", "aiohttp, uvloop", asyncio, "aiohttp", table.unpack(arguments)),
      python_client(bench, "httpx, uvloop", "httpx, uvloop", asyncio, "httpx", table.unpack(arguments)),
      node_client(bench, "undici", arguments),
      node_client(bench, "http", arguments),
      lua_http_client(bench, arguments),
      in_nginx,
      close = function()
        server:stop()
        if in_nginx.stop then in_nginx.stop() end
      end,
    }
  end
end

-- Of each peer's rate, ours; of CPU time as well, which is steadier: what it is to be at least.
local RATIOS <const> = {
  ["C, libcurl"] = 0.9, ["requests, threads"] = 14, ["aiohttp, uvloop"] = 4, ["node undici"] = 2,
  ["lua-http"] = 2,
}

-- `bars`: 25,000 a second on a core that has nothing else to do.
local function figure(concurrency, bars)
  local label = ("chats, c = %d"):format(concurrency)
  return {
    name = label,
    open = opener(concurrency),
    rows = {
      { key = "rate", label = label, unit = "/s", better = "more", bar = bars and 25000, ratios = RATIOS },
      { key = "cpu", label = "processor time of each", unit = "us", digits = 1, better = "less",
        bar = bars and 40 },
      { key = "mb", label = "resident at the most", unit = "MB", digits = 1, better = "less" },
    },
  }
end

return { figure(10), figure(64, true), figure(256) }
