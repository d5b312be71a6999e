-- SPDX-License-Identifier: MIT
local json = require "sluice.json"
local rules = require "sluice.transports.rules"

local QUERY <const> = { method = "POST", path = "/serving-endpoints/chat/invocations" }

-- Which of `count` equal requests are hit, as "..x".
local function row(set, count, request)
  local text = {}
  for index = 1, count do text[index] = set:match(request or QUERY) and "x" or "." end
  return table.concat(text)
end

local function problem(rule)
  local read, text = rules.read(rule)
  assert.is_nil(read)
  return text
end

describe("transports.rules", function()
  it("skips, hits so many times, and counts", function()
    local set = rules.new { { kind = "reset", skip = 2, times = 3 } }
    assert.equal("..xxx...", row(set, 8))
    assert.same({ { id = 1, kind = "reset", skip = 2, times = 3, seen = 8, hits = 3 } }, set:list())
  end)

  it("goes on to the next rule where one does not hit", function()
    local set = rules.new { { kind = "status", status = 503, times = 2 }, { kind = "reset", times = 1 } }
    local kinds = {}
    for index = 1, 4 do
      local fault = set:match(QUERY)
      kinds[index] = fault and fault.kind or "-"
    end
    assert.same({ "status", "status", "reset", "-" }, kinds)
    assert.same({ 4, 2 }, { set:list()[1].seen, set:list()[2].seen })
  end)

  it("matches by method, path, endpoint and predicate", function()
    local function hits(rule, request, endpoint)
      rule.kind = "refuse"
      return rules.new { rule }:match(request, endpoint) ~= nil
    end
    assert.is_true(hits({ method = "post" }, QUERY))
    assert.is_false(hits({ method = "GET" }, QUERY))
    assert.is_true(hits({ method = "GET" }, { path = "/" }))
    assert.is_true(hits({ path = "/serving-endpoints/*/invocations" }, QUERY))
    assert.is_true(hits({ path = "/serving-endpoints/*" }, QUERY))
    assert.is_true(hits({ path = "*/invocations" }, { path = "/invocations" }))
    assert.is_false(hits({ path = "*/invocations" }, QUERY), "a * stays within its segment")
    assert.is_false(hits({ path = "/serving-endpoints" }, QUERY))
    assert.is_false(hits({ path = "/serving.endpoints/chat/invocations" }, QUERY), "no Lua pattern")
    assert.is_true(hits({ path = "/a" }, { url = "https://host:1/a?b=/c#d" }))
    assert.is_true(hits({ path = "/" }, { url = "https://host?b" }))
    assert.is_true(hits({ endpoint = "chat" }, QUERY))
    assert.is_true(hits({ endpoint = "a b" }, { url = "http://h/api/2.0/serving-endpoints/a%20b/config" }))
    assert.is_true(hits({ endpoint = "big" }, { path = "/api/2.0/serving-endpoints/pt/big/config" }))
    assert.is_false(hits({ endpoint = "chat" }, { path = "/serving-endpoints/chatty/invocations" }))
    assert.is_true(hits({ endpoint = "chat" }, { path = "/v1/chat/completions" }, "chat"))
    local function is_big(request) return #request.body > 3 end
    assert.is_true(hits({ when = is_big }, { path = "/", body = "1234" }))
    assert.is_false(hits({ when = is_big }, { path = "/", body = "123" }))
  end)

  it("draws from a seed, and counts only what matches and is due", function()
    local function draw(seed, rule_seed)
      local rule = { kind = "refuse", probability = 0.3, method = "POST", seed = rule_seed }
      return row(rules.new({ rule }, { seed = seed }), 1000)
    end
    assert.equal(draw(1), draw(1))
    assert.not_equal(draw(1), draw(2))
    assert.not_equal(draw(1), draw(1, 7))
    local _, hits = draw(1):gsub("x", "")
    assert.is_true(hits > 240 and hits < 360, hits)
    local set = rules.new { { kind = "refuse", probability = 0.5, times = 3, skip = 1 } }
    assert.equal(3, select(2, row(set, 50):gsub("x", "")))
    assert.equal("......", row(rules.new { { kind = "refuse", probability = 0 } }, 6))
    assert.equal("xxxxxx", row(rules.new { { kind = "refuse", probability = 1 } }, 6))
  end)

  it("takes rules from JSON, null as left out, and gives them back", function()
    local set = rules.new()
    local given = assert(json.decode [[{ "kind": "status", "status": 429, "headers": { "Retry-After": "2" },
      "json": { "error_code": "REQUEST_LIMIT_EXCEEDED" }, "times": null, "skip": 0, "endpoint": "chat" }]])
    assert.equal(1, set:add(given))
    assert.equal(429, set:match(QUERY).status)
    assert.equal('[{"endpoint":"chat","headers":{"Retry-After":"2"},"hits":1,"id":1,'
      .. '"json":{"error_code":"REQUEST_LIMIT_EXCEEDED"},"kind":"status","seen":1,"skip":0,"status":429}]',
      json.encode(set:list(), { canonical = true }))
    assert.equal("[]", json.encode(rules.new():list()))
  end)

  it("removes and clears", function()
    local set = rules.new { { kind = "refuse" }, { kind = "reset" } }
    assert.is_true(set:remove(1))
    assert.is_false(set:remove(1))
    assert.equal("reset", set:match(QUERY).kind)
    assert.equal(3, set:add { kind = "html" })
    set:clear()
    assert.is_nil(set:match(QUERY))
    assert.equal(4, set:add { kind = "html" })
  end)

  it("says what is wrong with a rule", function()
    assert.equal("fault rule: an object is needed, got string", problem "reset")
    assert.equal('fault rule: option "kind" is missing', problem {})
    assert.equal('fault rule: unknown kind "resett" (did you mean "reset"?)', problem { kind = "resett" })
    assert.equal('fault rule: unknown option "tims" (did you mean "times"?)',
      problem { kind = "reset", tims = 1 })
    assert.matches('^fault rule: unknown option "status"', problem { kind = "reset", status = 1 })
    assert.equal('fault rule: option "times" must be an integer of at least 1, got 0',
      problem { kind = "reset", times = 0 })
    assert.equal('fault rule: option "skip" must be an integer of at least 0, got 1.5',
      problem { kind = "reset", skip = 1.5 })
    assert.equal('fault rule: option "probability" must be a number from 0 to 1, got 2',
      problem { kind = "reset", probability = 2 })
    assert.equal('fault rule: option "status" must be an integer from 200 to 599, got 99',
      problem { kind = "status", status = 99 })
    assert.equal('fault rule of kind "status": option "status" is missing', problem { kind = "status" })
    assert.equal('fault rule of kind "status": give one of "body" and "json"',
      problem { kind = "status", status = 500, body = "", json = {} })
    assert.equal('fault rule of kind "status": option "headers" must map names to strings',
      problem { kind = "status", status = 500, headers = { a = 1 } })
    assert.equal('fault rule of kind "truncate": option "bytes" is missing', problem { kind = "truncate" })
    assert.equal('fault rule: option "seconds" is missing', problem { kind = "delay" })
    assert.equal('fault rule of kind "drip": give one of "pause" and "bytes_per_second"',
      problem { kind = "drip" })
    assert.equal('fault rule of kind "split": give one of "size" and "sizes"', problem { kind = "split" })
    assert.matches('"sizes" must be an array of integers of at least 1',
      problem { kind = "split", sizes = { 1, 0 } })
    assert.matches('"after" must be false', problem { kind = "refuse", after = true })
  end)

  it("raises for a wrong rule at the line that gave it", function()
    local _, text = pcall(function() rules.new { { kind = "reset" }, { kind = "stal" } } end)
    assert.matches('rules_spec.lua:%d+: rule 2: fault rule: unknown kind "stal" ', text)
    _, text = pcall(function() rules.new({}, { sed = 1 }) end)
    assert.matches('rules_spec.lua:%d+: rules.new: unknown option "sed"', text)
  end)
end)
