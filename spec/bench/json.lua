-- SPDX-License-Identifier: MIT
-- JSON speed beside lua-cjson in the same run: medians of interleaved rounds.
--
--     sluice spec/bench/json.lua [ROUNDS]

local json = require "sluice.json"
local has_cjson, cjson = pcall(require, "cjson")
local rounds = tonumber(arg and arg[1]) or 9
local SLICE = 0.03 -- seconds that one measurement takes

local function chat()
  return [[{"id":"chatcmpl-9f3a1c2b7d8e4f5a6b7c8d9e0f1a2b3c","object":"chat.completion",]]
    .. [["created":1764000000,"model":"my-served-model-2","choices":[{"index":0,"message":]]
    .. [[{"role":"assistant","content":"A sluice is a gate in a channel: it lets a stream through, ]]
    .. [[holds it back, splits it and measures it, all day long.\nThat is what this program does to ]]
    .. [[requests for \"model endpoints\", and Lua opens and shuts the gate; nothing more than that ]]
    .. [[is needed to say what it is for."},"logprobs":null,"finish_reason":"stop"}],"usage":]]
    .. [[{"prompt_tokens":57,"completion_tokens":61,"total_tokens":118},]]
    .. [["system_fingerprint":"fp_44709d6fcb"}]]
end

local function chunk()
  return [[{"id":"chatcmpl-9f3a1c2b","object":"chat.completion.chunk","created":1764000000,"model":"m",]]
    .. [["choices":[{"index":0,"delta":{"content":" gate"},"finish_reason":null}]}]]
end

local function records()
  local rows = {}
  for i = 1, 250 do
    local row = '{"row":%d,"id":"request-%05d","ok":%s,"latency":%.3f,"tokens":[%d,%d,%d],"note":null}'
    rows[i] = row:format(i, i * 7, tostring(i % 3 == 0), i * 0.137, i, i * 3, i * 11)
  end
  return "[" .. table.concat(rows, ",") .. "]"
end

local function embedding()
  local numbers = {}
  math.randomseed(7)
  for i = 1, 900 do numbers[i] = ("%.17g"):format((math.random() - 0.5) / 8) end
  return '{"object":"embedding","index":0,"embedding":[' .. table.concat(numbers, ",") .. "]}"
end

local function text()
  local line = "The gate in the channel holds the stream back, and lets it through when there is room.\\n"
  return '{"role":"user","content":"' .. line:rep(760) .. '"}'
end

local function text_cjk()
  return '{"role":"user","content":"' .. ("水門は流れを通し、止め、分け、量る。"):rep(400) .. '"}'
end

local documents = {
  { "chat", chat() }, { "sse chunk", chunk() }, { "records", records() },
  { "embedding", embedding() }, { "text", text() }, { "text, CJK", text_cjk() },
}

-- Microseconds a call, over about SLICE seconds of processor time.
local function measure(f, argument)
  local batch, clock = 1, os.clock
  while true do
    local start = clock()
    for _ = 1, batch do f(argument) end
    local took = clock() - start
    if took >= SLICE then return took / batch * 1e6 end
    batch = took < SLICE / 20 and batch * 10 or math.ceil(batch * SLICE / took * 1.1)
  end
end

local function median(values)
  table.sort(values)
  return values[#values // 2 + 1]
end

-- The two take turns, so that what else the machine does meets both alike.
local function compare(argument, ours, theirs)
  local a, b, ratios = {}, {}, {}
  for i = 1, rounds do
    a[i] = measure(ours, argument)
    if theirs then
      b[i] = measure(theirs, argument)
      ratios[i] = b[i] / a[i]
    end
  end
  return median(a), theirs and median(b), theirs and median(ratios)
end

local function show(name, operation, bytes, ours, theirs, ratio)
  local line = "%-10s %6d B  %s  %8.2f us %5.0f MB/s"
  io.write(line:format(name, bytes, operation, ours, bytes / ours))
  if theirs then
    io.write(("   cjson %8.2f us %5.0f MB/s   ratio %.2f"):format(theirs, bytes / theirs, ratio))
  end
  io.write("\n")
end

if not has_cjson then print("lua-cjson is not here: no ratios") end
for _, document in ipairs(documents) do
  local name, source = document[1], document[2]
  local value = assert(json.decode(source))
  show(name, "decode", #source, compare(source, json.decode, has_cjson and cjson.decode))
  show(name, "encode", #source, compare(value, json.encode, has_cjson and cjson.encode))
end
