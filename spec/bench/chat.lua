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

-- What libcurl leaves to reach: the same in C, with the engine of our codec and no Lua.
local function c_client(bench, arguments)
  local name, root = "C, libcurl", bench.here .. "../../runtime/"
  local words = { bench.here .. "json_tree.c", "-I" .. root }
  for _, part in ipairs { "buffer", "number_format", "number_parse", "power10", "string", "utf8" } do
    words[#words + 1] = root .. "modules/json/" .. part .. ".c"
  end
  words[#words + 1], words[#words + 2] = "-lcurl", "-lev"
  local program = process.compile(bench, "curl_peer", table.unpack(words))
  if not program then return client(name, nil, "no C compiler") end
  return client(name, { program, table.unpack(arguments) })
end

local function python_client(bench, arguments)
  local name = "python requests, threads"
  for _, program in ipairs { process.find "/usr/bin/python3", process.find "python3" } do
    if process.succeeds { program, "-c", "import requests" } then
      return client(name, { program, bench.here .. "chat_requests.py", table.unpack(arguments) })
    end
  end
  return client(name, nil, "not installed")
end

local function node_client(bench, kind, arguments)
  local name, program = "node " .. kind, process.find("node", "nodejs")
  local missing = not program and "not installed"
  if program and kind == "undici" then
    local test = "require('module').createRequire(process.cwd() + '/')('undici')"
    missing = not process.succeeds { program, "-e", test } and "not installed (npm install undici)"
  end
  return client(name, { program, bench.here .. "chat_node.mjs", kind, table.unpack(arguments) }, missing)
end

local function opener(concurrency)
  return function(bench)
    if nginx.missing() then return { { name = "sluice", missing = nginx.missing() } } end
    local server = nginx.start(bench, chat.answer)
    local arguments = { server.url, tostring(concurrency), tostring(bench.seconds) }
    return {
      client("sluice", { bench.binary, bench.here .. "chat_client.lua", table.unpack(arguments) }),
      c_client(bench, arguments),
      python_client(bench, arguments),
      node_client(bench, "undici", arguments),
      node_client(bench, "http", arguments),
      close = function() server:stop() end,
    }
  end
end

-- Of each peer's rate, ours; of CPU time as well, which is steadier: what it is to be at least.
local RATIOS <const> = {
  ["C, libcurl"] = 0.9, ["python requests, threads"] = 14, ["node undici"] = 2,
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
