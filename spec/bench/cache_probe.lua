-- SPDX-License-Identifier: MIT
-- What caches cost, in processor time of this process: prints `KEY MICROSECONDS` lines.
--
--     sluice spec/bench/cache_probe.lua

local sluice = require "sluice"
local cache, json, layers, task = sluice.cache, sluice.json, sluice.layers, sluice.task

local ENTRIES <const> = 100000
local PAGE <const> = 4096

local function resident()
  local file <close> = assert(io.open "/proc/self/statm")
  local _, pages = file:read("n", "n")
  return pages * PAGE
end

-- Microseconds of processor time for each of `count` calls of f(index).
local function cost(count, f)
  local started = os.clock()
  for index = 1, count do f(index) end
  return (os.clock() - started) / count * 1e6
end

local function show(name, value)
  print(("%s %.4f"):format(name, value))
end

-- ---- the LRU: keys and values as short as can be told apart, so that what is left is the overhead ----

local function probe_lru()
  local keys, value = {}, ("v"):rep(100)
  for index = 1, ENTRIES do keys[index] = ("key-%012d"):format(index) end
  local lru = cache.lru()
  collectgarbage()
  local before = resident()
  for index = 1, ENTRIES do lru:set(keys[index], value) end
  collectgarbage()
  local payload = ENTRIES * (#keys[1] + #value)
  show("overhead", (resident() - before - payload) / ENTRIES)
  -- in the order of use, as a full cache sees it; twice, the first time for the memory
  local get, set
  for _ = 1, 2 do
    get = cost(ENTRIES, function(index) return lru:get(keys[index]) end)
    set = cost(ENTRIES, function(index) return lru:set(keys[index], value) end)
  end
  show("get", get)
  show("set", set)
end

-- ---- the key and the layer: a chat of 300 bytes, an answer of 600 ----

local request = {
  model = "my-served-model", temperature = 0, max_tokens = 256,
  messages = {
    { role = "system", content = "You are a gate keeper who answers in one sentence." },
    { role = "user", content = "What is a sluice, and who opens it in the morning when the water is high? "
      .. "Who shuts it at night?" },
  },
}

local TEXT <const> = [[{"id":"chatcmpl-9f3a1c2b7d8e4f5a6b7c8d9e0f1a2b3c","object":"chat.completion",]]
  .. [["created":1764000000,"model":"my-served-model-2","choices":[{"index":0,"message":]]
  .. [[{"role":"assistant","content":"A sluice is a gate in a channel: it lets a stream through, ]]
  .. [[holds it back, splits it and measures it, all day long.\nThat is what this program does to ]]
  .. [[requests for \"model endpoints\", and Lua opens and shuts the gate; nothing more than that ]]
  .. [[is needed to say what it is for."},"logprobs":null,"finish_reason":"stop"}],"usage":]]
  .. [[{"prompt_tokens":57,"completion_tokens":61,"total_tokens":118},]]
  .. [["system_fingerprint":"fp_44709d6fcb"}]]

local CALLS <const> = 100000

local function probe_key()
  local given = { endpoint = "my-endpoint" }
  cache.key(request, given) -- loads OpenSSL
  local whom = require("sluice.cache.identity").new(nil, "host", "my-endpoint")
  show("key", cost(CALLS, function() return whom:key(request) end))
end

local function probe_layer()
  local asked = 0
  local chat = layers.cache {} { name = "my-endpoint", host = "host", query = function()
    asked = asked + 1
    task.sleep(0.01)
    return json.decode(TEXT)
  end }
  local everyone = {}
  for index = 1, 1000 do everyone[index] = index end
  task.map(everyone, function() return assert(chat:query(request)) end, { concurrency = #everyone })
  show("calls", asked)
  show("hit", cost(CALLS, function() return chat:query(request) end))
end

probe_lru()
probe_key()
probe_layer()
