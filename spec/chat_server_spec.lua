-- SPDX-License-Identifier: MIT
-- scripts/chat_server.lua as a process of its own, before an emulator of this process; its page in a real Chromium.

local emulator = require "sluice.emulator"
local fixture = require "server_fixture"
local http = require "sluice.http"
local json = require "sluice.json"
local log = require "sluice.log"
local node = require "node_client"
local raw = require "raw_http"
local support = require "support"
local task = require "sluice.task"

local describe = support.needing("server", describe, pending)

local AUTHORIZATION <const> = { authorization = "Bearer any" }

local function call(url, method, path, body)
  local given = { url = url .. path, method = method, headers = AUTHORIZATION, json = body }
  return fixture.need(http.request(given))
end

-- Runs f(url of the chat server, emulator's server) with an endpoint "chat" that echoes.
local function with_chat_server(options, words, f)
  local previous = log.set_output(function() end)
  local server <close> = fixture.need(emulator.new(options):listen "127.0.0.1:0")
  local config = { served_entities = { { entity_name = "main.default.echo", entity_version = "1" } } }
  call(server.url, "POST", "/api/2.0/serving-endpoints", { name = "chat", config = config })
  local script = "scripts/chat_server.lua --listen 127.0.0.1:0 " .. words
  fixture.with_script(server.url, script, function(url) f(url, server) end)
  log.set_output(previous)
end

local QUESTION <const> = { { role = "user", content = "one two three" } }

describe("scripts/chat_server.lua", function()
  it("streams, answers, lists and tells its health", function()
    with_chat_server({ deploy_time = 0 }, "chat", function(url)
      for _, body in ipairs { QUESTION, { messages = QUESTION } } do
        local res = call(url, "POST", "/chat", body)
        assert.same({ 200, "text/event-stream" }, { res.status, res.headers["content-type"] })
        local text, last = "", nil
        for event in res:events() do
          last = event.data
          local chunk = last ~= "[DONE]" and fixture.need(json.decode(last))
          local choice = chunk and chunk.choices[1]
          text = text .. (choice and choice.delta.content or "")
        end
        assert.same({ "one two three", "[DONE]" }, { text, last })
        assert.same({ response = "one two three" }, call(url, "POST", "/query", body):json())
      end
      assert.same({ { name = "chat", state = "READY" } }, call(url, "GET", "/endpoints"):json())
      local function health() return call(url, "GET", "/health") end
      assert.is_true(fixture.eventually(function() return health().status == 200 end))
      assert.same({ true, "chat" }, { health():json().ready, health():json().endpoints[1].endpoint })
    end)
  end)

  it("is not healthy while its endpoint is not, and says why", function()
    with_chat_server({ deploy_time = 60 }, "chat", function(url)
      assert.is_true(fixture.eventually(function()
        local health = call(url, "GET", "/health")
        return health.status == 503 and health:json().reasons[1]:find "chat: .*NOT_READY"
      end))
    end)
    with_chat_server({ deploy_time = 0 }, "nowhere", function(url)
      local health = call(url, "GET", "/health")
      assert.equal(503, health.status)
      assert.matches("nowhere", health:json().reasons[1])
      assert.equal(404, call(url, "POST", "/chat", QUESTION).status)
    end)
  end)

  it("says what is wrong with a request", function()
    with_chat_server({ deploy_time = 0 }, "chat", function(url)
      for _, path in ipairs { "/chat", "/query" } do
        for _, case in ipairs {
          { "{", "ends too early" }, { "", "" }, { "5", "array of messages" }, { "[]", "array of messages" },
          { "{}", "array of messages" }, { '{"messages":"hello"}', "array of messages" },
          { "[1]", "message 1" },
          { '[{"role":"user","content":"a"},{"role":"user"}]', "message 2" },
          { '[{"role":5,"content":"a"}]', "message 1" },
        } do
          local res = fixture.need(http.request { url = url .. path, method = "POST", body = case[1] })
          assert.equal(400, res.status)
          assert.matches(case[2], res:json().error.message)
        end
      end
      local large = ("x"):rep(1 << 21)
      local res = fixture.need(http.request { url = url .. "/chat", method = "POST", body = large })
      assert.equal(413, res.status)
      assert.equal(405, call(url, "GET", "/chat").status)
    end)
  end)

  it("waits for a client that does not read, and holds the endpoint's stream meanwhile", function()
    with_chat_server({ deploy_time = 0 }, "chat", function(url, emulated)
      local body = fixture.need(json.encode { { role = "user", content = ("word "):rep(150000) } })
      local c <close> = fixture.need(raw.connect(url:match "//(.*)$"))
      c:write(("POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
      assert.is_true(fixture.eventually(function() return select(2, emulated:counts()) == 1 end))
      task.sleep(0.3)
      assert.equal(1, (select(2, emulated:counts())))
      c:reset()
      assert.is_true(fixture.eventually(function() return select(2, emulated:counts()) == 0 end))
    end)
  end)
end)

local function find_browser()
  local found = support.shell "command -v chromium || command -v chromium-browser || command -v google-chrome"
  return found.status == 0 and found.out:match "%S+" or nil
end

describe("scripts/chat_server.html", function()
  local browser = find_browser()
  local why = node.missing() or not browser and "Chromium is not installed" or nil
  if why then
    pending(why, function() end)
    return
  end

  it("shows an answer as it is made, and stops one, in Chromium", function()
    with_chat_server({ deploy_time = 0, token_time = 0.1 }, "chat", function(url, emulated)
      local screenshot = support.build .. "/chat_page.png"
      os.remove(screenshot)
      local status, text = node.run("chat_page.mjs", browser, url .. "/", screenshot)
      assert.equal(0, status, text)
      local seen = fixture.need(json.decode(text))
      assert.equal("chat is ready", seen.state)
      assert.equal("one two three four five six <b>seven</b>", seen.answer)
      assert.equal(0, seen.markup)
      assert.is_true(#seen.lengths >= 4, text) -- it grew before our eyes
      assert.same({ "Stopped.", 2, {} }, { seen.stopped, seen.users, seen.problems })
      assert.is_true(fixture.eventually(function() return select(2, emulated:counts()) == 0 end))
      assert.equal("\x89PNG", support.read_file(screenshot):sub(1, 4))
    end)
  end)
end)
