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

  it("carries fields along", function()
    local logger = log.with { request_id = "r-1", part = "a" }
    local line = lines_of(function() logger.error("failed", { part = "b" }) end)[1]
    assert.same({ "error", "failed", "r-1", "b" }, { line.level, line.event, line.request_id, line.part })
  end)
end)
