-- SPDX-License-Identifier: MIT
-- scripts/gateway.lua as a process of its own, between clients that others wrote and servers of this process.

local emulator = require "sluice.emulator"
local fixture = require "server_fixture"
local http = require "sluice.http"
local log = require "sluice.log"
local node = require "node_client"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local describe = support.needing("server", describe, pending)
local it_of_program = support.about_program(it, pending)

local KEY <const> = "sk-gateway-0123456789"

-- Runs f(url, pid) with a gateway to the workspace at `host`.
local function with_gateway(host, words, f)
  support.with_file("alice " .. KEY .. "\n", function(keys)
    local script = "scripts/gateway.lua --listen 127.0.0.1:0 --keys %s %s"
    fixture.with_script("http://" .. host, script:format(keys, words), f)
  end)
end

local function ask(url, given)
  given.url, given.method = url .. (given.path or "/chat/completions"), given.method or "POST"
  given.path = nil
  given.headers = given.headers or { authorization = "Bearer " .. KEY }
  return fixture.need(http.request(given))
end

-- Runs f with the address of an app in the place of a workspace; `answer` is its invocations handler.
local function with_upstream(answer, words, f)
  local app = web.app()
  app:post("/serving-endpoints/:name/invocations", answer)
  local server <close> = fixture.need(app:listen "127.0.0.1:0")
  with_gateway(server.address, words, f)
end

describe("scripts/gateway.lua", function()
  it("has 120 lines at most", function()
    local _, lines = support.read_file("scripts/gateway.lua"):gsub("\n", "")
    assert.is_true(lines <= 120, lines)
  end)

  it("serves the npm package openai", function()
    local why = node.missing "openai"
    if why then return pending(why) end
    local emulated = emulator.new { deploy_time = 0, token_time = 0.001 }
    local server <close> = fixture.need(emulated:listen "127.0.0.1:0")
    for name, model in pairs { chat = "echo", embed = "embedding" } do
      local served = { entity_name = "main.default." .. model, entity_version = "1" }
      fixture.need(http.request {
        url = "http://" .. server.address .. "/api/2.0/serving-endpoints",
        headers = { authorization = "Bearer any" },
        json = { name = name, config = { served_entities = { served } } },
      })
    end
    local previous = log.set_output(function() end)
    with_gateway(server.address, "chat=chat embed=embed safe=away,chat", function(url)
      local status, text = node.run("gateway_client.mjs", url, KEY)
      assert.equal(0, status, text)
      local _, steps = text:gsub("ok [^\n]+\n", "")
      assert.equal(8, steps, text)
    end)
    log.set_output(previous)
  end)

  it("passes bodies on byte for byte, both ways", function()
    local sent = '{ "model":"m",  "messages" : [ {"content":"\\u00e9","role":"user"} ], "seed":1.0,"z":1e2 }'
    local answered, seen = '{ "choices":[ ],  "x":1.0}', nil
    with_upstream(function(request)
      seen = request.body
      return { headers = { ["content-type"] = "application/json" }, body = answered }
    end, "m=some", function(url)
      assert.equal(answered, ask(url, { body = sent }).body)
      assert.equal(sent, seen)
    end)
  end)

  local function rows_of(path)
    local db <close> = assert(require("sluice.sqlite").open(path))
    return db:query [[SELECT status_code, input_tokens, output_tokens, error_kind, request,
      request_metadata FROM inference_log ORDER BY rowid]] or {}
  end

  it("writes a row for each request", function()
    if not support.has "sqlite" then return pending "this build has no sqlite" end
    support.with_file("", function(path)
      local answer = '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4},"model":"m-1"}'
      with_upstream(function(request)
        if request:json().fails then return { status = 400, json = { error_code = "BAD_REQUEST" } } end
        return { headers = { ["content-type"] = "application/json" }, body = answer }
      end, "--capture " .. path .. " m=some", function(url)
        ask(url, { json = { model = "m", messages = {} } })
        ask(url, { json = { model = "m", messages = {}, fails = true } })
        -- told to end, the program writes what is left; lua5.4 does not
        if support.is_rock then fixture.eventually(function() return #rows_of(path) == 2 end) end
      end)
      local metadata = '{"endpoint_name":"some","model_name":"%s"}'
      assert.same({
        { status_code = 200, input_tokens = 3, output_tokens = 4, request_metadata = metadata:format "m-1" },
        { status_code = 400, error_kind = "BadRequest", request_metadata = metadata:format "m" },
      }, rows_of(path))
      for _, suffix in ipairs { "-wal", "-shm" } do os.remove(path .. suffix) end
    end)
  end)

  it("passes the events of a stream on as they come", function()
    local first <const> = '{ "choices":[{"delta":{"content":"a"}}],"n":1.0 }'
    local gate = task.channel()
    with_upstream(function()
      local step = 0
      return { stream = function()
        step = step + 1
        if step == 1 then return { data = first } end
        if step == 2 then return gate:receive() end
        return step == 3 and "data: [DONE]\n\n" or nil
      end }
    end, "m=some", function(url)
      local body = { model = "m", stream = true, messages = {} }
      local res <close> = ask(url, { json = body, stream = true })
      local events = res:events()
      assert.equal(first, events().data) -- while the upstream still holds back the rest
      gate:send { data = '{"choices":[{"delta":{},"finish_reason":"stop"}]}' }
      assert.equal('{"choices":[{"delta":{},"finish_reason":"stop"}]}', events().data)
      assert.equal("[DONE]", events().data)
    end)
  end)

  it("shows curl -N each event when it comes", function()
    local emulated = emulator.new { deploy_time = 0, token_time = 0.05 }
    local server <close> = fixture.need(emulated:listen "127.0.0.1:0")
    local config = { served_entities = { { entity_name = "main.default.echo", entity_version = "1" } } }
    fixture.need(http.request {
      url = "http://" .. server.address .. "/api/2.0/serving-endpoints",
      headers = { authorization = "Bearer any" }, json = { name = "chat", config = config },
    })
    with_gateway(server.address, "m=chat", function(url)
      support.with_file("", function(out)
        local body = '{"model":"m","stream":true,"messages":[{"role":"user","content":"a b c d e f"}]}'
        local command = "curl -sN -H 'x-api-key: %s' -d '%s' %s/chat/completions >%s &"
        os.execute(command:format(KEY, body, url, out))
        local partial
        assert.is_true(fixture.eventually(function()
          local text = support.read_file(out)
          partial = partial or (text:find("data: ", 1, true) and not text:find("[DONE]", 1, true))
          return text:find("data: [DONE]\n\n", 1, true) ~= nil
        end))
        assert.is_true(partial)
      end)
    end)
  end)

  it("says what is wrong with a request", function()
    local function refuse() return { status = 422, json = { error = "unprocessable" } } end
    with_upstream(refuse, "m=some", function(url)
      local cases = {
        { 400, { body = "{" } },
        { 400, { json = { "no", "chat" } } },
        { 400, { json = { model = "m" } } },
        { 400, { body = '{"model":"m","messages":null}' } },
        { 404, { json = { model = { "m" }, messages = {} } } },
        { 404, { json = { model = "other", messages = {} } } },
        { 404, { json = { messages = {} } } },
        { 422, { json = { model = "m", messages = {} } } },
        { 401, { json = {}, headers = {} } },
        { 401, { json = {}, headers = { authorization = "Bearer sk-wrong" } } },
        { 405, { method = "GET" } },
      }
      for _, case in ipairs(cases) do
        local res = ask(url, case[2])
        assert.equal(case[1], res.status, res.body)
        local told = res:json().error
        assert.is_string(told.message)
        assert.is_string(told.type)
        assert.is_nil(res.body:find(KEY, 1, true))
        assert.is_nil(res.body:find "table: 0x")
      end
      assert.same({ "m" }, { ask(url, { path = "/models", method = "GET" }):json().data[1].id })
    end)
  end)

  it("closes the upstream's connection when its client leaves, streaming and not", function()
    for _, streams in ipairs { true, false } do
      local left
      local asked = task.channel(1)
      with_upstream(function()
        local function hold()
          asked:send(true)
          local ok, err = pcall(task.sleep, 30)
          left = task.now()
          if not ok then error(err, 0) end
        end
        if not streams then return hold() end
        local step = 0
        return { stream = function()
          step = step + 1
          if step == 1 then return { data = '{"choices":[{"delta":{"content":"a"}}]}' } end
          return hold()
        end }
      end, "m=some", function(url)
        local client = task.spawn(function()
          local body = { model = "m", stream = streams, messages = {} }
          local res <close> = ask(url, { json = body, stream = true })
          for _ in res:chunks() do end -- luacheck: ignore
        end)
        asked:receive()
        task.sleep(0.05) -- what came first is with the client
        local from = task.now()
        client:cancel "gone"
        pcall(client.join, client)
        assert.is_true(fixture.eventually(function() return left ~= nil end))
        assert.is_true(left - from < 0.1, tostring(left - from))
      end)
    end
  end)

  it_of_program("lets streams end when it is terminated", function()
    local gate = task.channel()
    with_upstream(function()
      local step = 0
      return { stream = function()
        step = step + 1
        if step == 1 then return { data = '{"choices":[{"delta":{"content":"a"}}]}' } end
        if step == 2 then return gate:receive() end
        return step == 3 and "data: [DONE]\n\n" or nil
      end }
    end, "m=some", function(url, pid)
      local res <close> = ask(url, { json = { model = "m", stream = true, messages = {} }, stream = true })
      local events = res:events()
      events()
      os.execute("kill -TERM " .. pid)
      assert.is_true(fixture.eventually(function() -- no new connection is taken
        return http.request { url = url .. "/models", timeout = 1 } == nil
      end))
      gate:send { data = '{"choices":[{"delta":{},"finish_reason":"stop"}]}' }
      events()
      assert.equal("[DONE]", events().data)
    end)
  end)
end)
