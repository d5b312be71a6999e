-- SPDX-License-Identifier: MIT
-- Planted secrets must come out nowhere: a program uses them in headers, URLs, bodies, configuration and errors, and
-- all its output, log, cassette, metrics, traces and state are searched.
local json = require "sluice.json"
local support = require "support"

local describe = support.needing("server", describe, pending)

local SECRETS <const> = {
  token = "dapi0123456789abcdef0123456789abcdef", header = "sk-canary-HEADER-5f1c77",
  user = "canary-user-3c81d2", query = "canary-query-77b1e0",
}
local PROMPT <const> = "canary-prompt-a2d4"

-- What each file may hold nothing of.
local function assert_clean(name, text, prompt_too)
  for what, secret in pairs(SECRETS) do
    local at = text:find(secret, 1, true)
    local around = at and text:sub(math.max(at - 300, 1), at + 60)
    assert.is_nil(at, ("%s holds the %s: %s"):format(name, what, around))
  end
  if prompt_too then assert.is_nil(text:find(PROMPT, 1, true), name .. " holds the prompt") end
end

describe("planted secrets", function()
  it("are in nothing that a program leaves behind", function()
    local folder = support.shell("mktemp -d").out:match "%S+"
    local ran = support.sluice("spec/canary_program.lua", folder, SECRETS.token, SECRETS.header, SECRETS.user,
      SECRETS.query, PROMPT)
    local files = {}
    for path in support.shell("find " .. folder .. " -type f").out:gmatch "%S+" do
      files[path:match "[^/]+$"] = support.read_file(path)
    end
    os.execute("rm -rf " .. folder)
    assert.equal(0, ran.status, ran.err)
    assert_clean("standard output", ran.out, true)
    assert_clean("standard error", ran.err, true)
    for name, text in pairs(files) do
      assert.is_true(#text > 100, name)
      assert_clean(name, text, name ~= "cassette.jsonl")
    end
    -- and all of it was there to be searched
    assert.is_true(#ran.out > 4000)
    for _, name in ipairs { "log", "cassette.jsonl", "state.jsonl", "metrics", "traces" } do
      assert.is_string(files[name], name)
    end
    assert.equal(support.has "sqlite", files["inference_log.db"] ~= nil)
    local events = {}
    for line in files.log:gmatch "[^\n]+" do
      local entry = assert(json.decode(line), line)
      events[entry.event] = (events[entry.event] or 0) + 1
    end
    assert.is_true(events.query_start > 60 and events.query_error > 50 and events.query_success >= 1)
  end)

  it("would be found", function()
    assert.has_error(function() assert_clean("x", "a " .. SECRETS.user) end)
    assert.has_error(function() assert_clean("x", "a " .. PROMPT, true) end)
  end)
end)
