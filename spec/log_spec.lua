-- SPDX-License-Identifier: MIT
local errors = require "sluice.errors"
local json = require "sluice.json"
local log = require "sluice.log"
local secret = require "sluice.secret"
local task = require "sluice.task"

-- The lines that f writes, decoded.
local function lines_of(f)
  local lines = {}
  local previous = log.set_output(function(line)
    assert.equal("\n", line:sub(-1))
    assert.is_nil(line:find("\n", 1, true) < #line and line or nil)
    lines[#lines + 1] = assert(json.decode(line))
  end)
  local ok, err = pcall(f)
  log.set_output(previous)
  log.set_level("info")
  assert(ok, err)
  return lines
end

describe("log", function()
  it("writes one JSON object a line", function()
    task.simulate(function()
      local line = lines_of(function()
        log.info("started", { port = 8080, ok = true, list = { 1, 2 } })
      end)[1]
      assert.equal("2026-01-01T00:00:00.000Z", line.time)
      assert.equal("info", line.level)
      assert.equal("started", line.event)
      assert.equal(8080, line.port)
      assert.is_true(line.ok)
      assert.equal(2, line.list[2])
    end)
  end)

  it("leaves out what is below the level", function()
    local lines = lines_of(function()
      log.set_level("warn")
      log.debug("a") log.info("b") log.warn("c") log.error("d")
      assert.is_false(log.is_enabled("info"))
      assert.is_true(log.is_enabled("error"))
      log.set_level("off")
      log.error("e")
      log.set_level("debug")
      log.debug("f")
    end)
    local events = {}
    for index, line in ipairs(lines) do events[index] = line.event end
    assert.same({ "c", "d", "f" }, events)
    assert.has_error(function() log.set_level("warning") end)
  end)

  it("shows no secret, wherever it stands", function()
    local token = secret.new("dapi-in-the-log")
    local seen = lines_of(function()
      log.warn("x dapi-in-the-log", {
        token_object = token, text = "Bearer dapi-in-the-log", nested = { deep = { "dapi-in-the-log" } },
        ["dapi-in-the-log"] = 1, authorization = "Basic abc", headers = { Cookie = "c=1" },
        err = errors.new("BadRequest", { message = "dapi-in-the-log" }),
      })
    end)[1]
    local text = json.encode(seen)
    assert.is_nil(text:find("dapi", 1, true))
    assert.equal("***", seen.token_object)
    assert.equal("***", seen.authorization)
    assert.equal("***", seen.headers.Cookie)
    assert.equal("BadRequest", seen.err.kind)
  end)

  it("shows no secret that JSON writes in another way, or cannot hold", function()
    for _, bytes in ipairs { 'quo"te\\back', "tab\tand\1ctl", "not/utf8\255\254x", "gr\u{fc}n-gr\u{fc}n" } do
      local token <close> = setmetatable({ secret.new(bytes) }, { __close = function() end })
      local text
      local previous = log.set_output(function(line) text = line end)
      log.info("event " .. bytes, { [bytes] = 1, text = "a " .. bytes .. " b", token = token[1] })
      log.set_output(previous)
      assert.is_string(json.decode(text).event)
      for _, form in ipairs { bytes, bytes:sub(1, 8), "back", "u0001ctl", "utf8" } do
        assert.is_nil(text:find(form, 1, true), text)
      end
    end
  end)

  it("takes any value, whatever JSON thinks of it", function()
    local loop = {}
    loop.loop = loop
    local lines = lines_of(function()
      log.info("odd", {
        f = print, bytes = "\255\0x", nan = 0 / 0, inf = math.huge, loop = loop, mixed = { 1, x = 2 },
        co = coroutine.create(print), null = json.null,
      })
      log.info("\200 event")
      log.info("no fields")
    end)
    assert.equal(3, #lines)
    assert.is_string(lines[1].f)
  end)

  it("says at the caller that fields are no table, whatever the level", function()
    for _, wrong in ipairs { "text", 5, true } do
      local ok, text = pcall(log.debug, "e", wrong)
      assert.is_false(ok)
      assert.matches('log_spec.lua:%d+: log.debug: argument "fields" must be a table', text)
    end
  end)

  it("carries fields along", function()
    local logger = log.with { request_id = "r-1", part = "a" }
    local line = lines_of(function() logger.error("failed", { part = "b" }) end)[1]
    assert.same({ "error", "failed", "r-1", "b" }, { line.level, line.event, line.request_id, line.part })
  end)

  it("binds fields to a task, and to those that it spawns", function()
    local lines = lines_of(function()
      task.scope(function()
        task.spawn(function()
          log.bind { request_id = "r-1", part = "handler" }
          log.bind { user = 7 }
          task.spawn(function()
            log.info("child", { part = "own" })
            log.with({ logger = 1, user = 8 }).info("child's logger")
          end):join()
          do
            local _ <close> = log.bind { inner = true }
            log.info "inside"
          end
          log.info "outside"
        end):join()
        log.info "elsewhere"
      end)
    end)
    assert.same({ "r-1", "own", 7 }, { lines[1].request_id, lines[1].part, lines[1].user })
    assert.same({ "r-1", "handler", 8, 1 },
      { lines[2].request_id, lines[2].part, lines[2].user, lines[2].logger })
    assert.same({ true, "r-1", 7 }, { lines[3].inner, lines[3].request_id, lines[3].user })
    assert.same({ nil, "r-1", 7 }, { lines[4].inner, lines[4].request_id, lines[4].user })
    assert.is_nil(lines[5].request_id)
    assert.has_error(function() log.bind "x" end)
  end)

  it("gives a task's fields to what its request leads to in a web app", function()
    local web = require "sluice.web"
    local app = web.app()
    app:get("/", function(request)
      local _ <close> = log.bind { request_id = request.id }
      task.map({ 1, 2, 3 }, function(n) log.info("item", { n = n }) end)
      log.info "done"
      return { status = 204 }
    end)
    local lines = lines_of(function()
      for _, id in ipairs { "one", "two" } do
        assert(app:handle { method = "GET", url = "http://h/", headers = { ["x-request-id"] = id } })
      end
      log.info "after"
    end)
    local ids = {}
    for index, line in ipairs(lines) do ids[index] = line.request_id or "none" end
    assert.same({ "one", "one", "one", "one", "two", "two", "two", "two", "none" }, ids)
  end)

  it("writes a share of an event's lines, counts the others, and all of its errors", function()
    local lines = lines_of(function()
      log.sample("often", 0.25)
      for n = 1, 10 do log.info("often", { n = n }) end
      log.info "else"
      log.error("often", { n = 11 })
      assert.same({ often = 7 }, log.stats().sampled_out)
      log.sample("often", 0)
      log.info "often"
      assert.same({ often = 8 }, log.stats().sampled_out)
      log.sample("often", nil)
      log.info("often", { n = 12 })
    end)
    local numbers, left_out = {}, 0
    for index, line in ipairs(lines) do
      numbers[index] = line.n or line.event
      left_out = left_out + (line.sampled_out or 0)
    end
    assert.same({ 1, 5, 9, "else", 11, 12 }, numbers)
    assert.same({ nil, 3, 3 }, { lines[1].sampled_out, lines[2].sampled_out, lines[3].sampled_out })
    assert.equal(6, left_out)
    for _, wrong in ipairs { -1, 2, 0 / 0, "x" } do
      assert.has_error(function() log.sample("e", wrong) end)
    end
    assert.same({}, log.stats().sampled_out)
  end)

  it("looks as SLUICE_LOG_FORMAT says, or as a terminal wants it", function()
    local support = require "support"
    local run = support.quote(support.binary) .. " -e 'require(\"sluice.log\").info(\"hi\", { a = 1 })'"
    assert.matches('^{"time":', support.shell(run).err)
    local plain = support.shell("SLUICE_LOG_FORMAT=text " .. run).err
    assert.matches("^%d%d:%d%d:%d%d%.%d%d%d INFO  hi  a=1\n$", plain)
    local shown = support.shell(("TERM=xterm script -qc %s /dev/null"):format(support.quote(run))).out
    assert.matches("\27%[32mINFO", shown)
    shown = support.shell(("NO_COLOR=1 script -qc %s /dev/null"):format(support.quote(run))).out
    assert.matches("INFO  hi  a=1", shown)
    assert.is_nil(shown:find("\27[", 1, true))
    shown = support.shell(("SLUICE_LOG_FORMAT=json script -qc %s /dev/null"):format(support.quote(run))).out
    assert.matches('^{"time":', shown)
  end)
end)
