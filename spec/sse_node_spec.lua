-- SPDX-License-Identifier: MIT
-- Another reader of the same streams: what npm's eventsource-parser finds in them, at every split.
local json = require "sluice.json"
local reference = require "sse_reference"
local sse = require "sluice.sse"
local support = require "support"

-- Each line in is a stream in hexadecimal; out come its events for each split into two, one array for
-- those that are alike. A line more at the end makes the parser take what it has put aside.
local PARSER <const> = [[
const { createParser } = require(process.argv[1] + "/eventsource-parser");
function read(pieces) {
  const found = { events: [], retry: null };
  const parser = createParser({
    onEvent: (event) => found.events.push([event.data, event.event ?? null, event.id ?? null]),
    onRetry: (retry) => { found.retry = String(retry); },
  });
  const decoder = new TextDecoder();
  for (const piece of pieces) parser.feed(decoder.decode(piece, { stream: true }));
  parser.feed(decoder.decode() + ":\n");
  return JSON.stringify(found);
}
for (const line of require("fs").readFileSync(0, "utf8").split("\n")) {
  if (line === "") continue;
  const bytes = Buffer.from(line, "hex"), all = new Set();
  for (let cut = 0; cut <= bytes.length; cut++) all.add(read([bytes.subarray(0, cut), bytes.subarray(cut)]));
  console.log("[" + [...all].join(",") + "]");
}]]

local node_modules <const> = "spec/node/node_modules"

local function hex(stream)
  return (stream:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

---For each stream what Node finds.
local function ask_node(streams)
  local lines = {}
  for index, stream in ipairs(streams) do lines[index] = hex(stream) end
  return support.with_file(table.concat(lines, "\n") .. "\n", function(path)
    local folder = support.quote("./" .. node_modules)
    local result = support.shell(("node -e %s %s <%s"):format(support.quote(PARSER), folder, path))
    assert.are.equal(0, result.status, result.err)
    local answers = {}
    for line in result.out:gmatch "[^\n]+" do answers[#answers + 1] = assert(json.decode(line)) end
    return answers
  end)
end

local function or_nil(value)
  if value == json.null then return nil end
  return value
end

---Whether ours are theirs. Theirs have an id only where the event itself has one; ours keep the last.
local function compare(stream, theirs, ours, retry)
  local shown = ("%q"):format(stream)
  assert.are.equal(#theirs.events, #ours, shown)
  for index, event in ipairs(theirs.events) do
    assert.are.equal(event[1], ours[index].data, shown)
    assert.are.equal(or_nil(event[2]), ours[index].event, shown)
    if or_nil(event[3]) then assert.are.equal(event[3], ours[index].id, shown) end
  end
  assert.are.equal(or_nil(theirs.retry), retry and tostring(retry), shown)
end

describe("sse.reader and npm's eventsource-parser", function()
  it("find the same events at every split", function()
    local there = support.shell(("test -d %s/eventsource-parser && command -v node"):format(node_modules))
    if there.status ~= 0 then return pending "node or eventsource-parser is not installed" end
    math.randomseed(20260612)
    local streams, count = {}, 0
    for index = 1, 200 do streams[index] = reference.random_stream(math.random(4, 40)) end
    for index, found in ipairs(ask_node(streams)) do
      local stream = streams[index]
      for cut = 0, #stream do
        local reader = sse.reader()
        local ours = assert(reader:feed(stream:sub(1, cut)))
        for _, event in ipairs(assert(reader:feed(stream:sub(cut + 1)))) do ours[#ours + 1] = event end
        for _, theirs in ipairs(found) do compare(stream, theirs, ours, reader.retry) end
        count = count + #ours
      end
    end
    assert(count > 3000, "hardly any event was there: " .. count)
  end)
end)
