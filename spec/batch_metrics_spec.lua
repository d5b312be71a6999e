-- SPDX-License-Identifier: MIT
-- Batches that are seen while they run: in a registry, and by sluice top.

local batch = require "sluice.batch"
local batch_metrics = require "sluice.batch.metrics"
local errors = require "sluice.errors"
local fixture = require "server_fixture"
local metrics = require "sluice.metrics"
local process = require "sluice.core.process"
local support = require "support"
local task = require "sluice.task"
local web = require "sluice.web"

local function value_of(registry, series)
  local text = ("\n" .. registry:text()):match("\n" .. series:gsub("%p", "%%%0") .. " ([^\n]+)\n")
  return text and tonumber(text)
end

local function rows(count)
  local input = {}
  for index = 1, count do input[index] = { prompt = tostring(index) } end
  return input
end

describe("a batch in a registry", function()
  local registry
  before_each(function() registry = metrics.registry() end)

  -- Takes a second for each; every fifth one fails.
  local endpoint = { query = function(_, request)
    task.sleep(1)
    if tonumber(request.prompt) % 5 == 0 then return nil, errors.new("BadRequest", { message = "no" }) end
    return { usage = { prompt_tokens = 1, completion_tokens = 2, total_tokens = 3 } }
  end }

  it("tells how far it is while it runs, and what it did afterwards", function()
    task.simulate(function()
      local running = task.spawn(batch.run, {
        endpoint = endpoint, input = rows(40), concurrency = 4, metrics = registry,
      })
      task.sleep(5.5)
      assert.equal(16, value_of(registry, 'sluice_batch_results_total{result="ok"}'))
      assert.equal(4, value_of(registry, 'sluice_batch_results_total{result="failed"}'))
      assert.equal(4, value_of(registry, "sluice_batch_in_flight"))
      assert.equal(4, value_of(registry, "sluice_batch_concurrency"))
      assert.equal(48, value_of(registry, "sluice_batch_tokens_total"))
      assert.equal(0, value_of(registry, "sluice_batch_pause_seconds"))
      assert.equal(40, running:join().rows)
      assert.equal(32, value_of(registry, 'sluice_batch_results_total{result="ok"}'))
      assert.is_nil(value_of(registry, "sluice_batch_in_flight"))
      batch.run { endpoint = endpoint, input = rows(10), concurrency = 10, metrics = registry }
      assert.equal(40, value_of(registry, 'sluice_batch_results_total{result="ok"}'))
      assert.equal(10, value_of(registry, 'sluice_batch_results_total{result="failed"}'))
    end)
  end)

  it("tells of a pause, and of tries", function()
    task.simulate(function()
      local refused = false
      local shy = { query = function(_, request)
        if refused then return endpoint:query(request) end
        refused = true
        return nil, errors.new("TooManyRequests", {
          status = 429, message = "later", retryable = true, retry_after = 9,
        })
      end }
      local running = task.spawn(batch.run, { endpoint = shy, input = rows(1), metrics = registry })
      task.sleep(4)
      assert.equal(5, value_of(registry, "sluice_batch_pause_seconds"))
      running:join()
      assert.equal(1, value_of(registry, "sluice_batch_retries_total"))
    end)
  end)

  it("lets go of a run that fails", function()
    local made = { engine = { tally = { ok = 1, failed = 2, retries = 3, tokens = 4 }, busy = 0,
      throttle = { limit = 1.5, paused_until = 0 } }, total = 7 }
    pcall(function()
      local watched <close> = batch_metrics.watch(registry, made) -- luacheck: ignore
      assert.equal(7, value_of(registry, "sluice_batch_rows"))
      error "stop"
    end)
    assert.is_nil(value_of(registry, "sluice_batch_rows"))
    assert.equal(4, value_of(registry, "sluice_batch_tokens_total"))
  end)

  it("needs a registry", function()
    assert.has_error(function() batch.run { endpoint = endpoint, input = {}, metrics = {} } end)
  end)
end)

support.needing("server", describe, pending)("scripts/batch.lua --metrics", function()
  it("is seen by sluice top while it runs", function()
    local app, gate = web.app(), task.channel(100)
    app:post("/serving-endpoints/:name/invocations", function()
      gate:receive()
      return { json = { usage = { total_tokens = 5, completion_tokens = 4 } } }
    end)
    local server <close> = fixture.need(app:listen "127.0.0.1:0")
    support.with_file(('{"prompt":"x"}\n'):rep(10), function(input)
      support.with_file("", function(said)
        local command = "DATABRICKS_HOST=http://%s DATABRICKS_TOKEN=any exec %s scripts/batch.lua"
          .. " --endpoint rivers --input %s --output %s.out --metrics 127.0.0.1:0 2>%s"
        local words = command:format(server.address, support.quote(support.binary), input, input, said)
        local running = task.spawn(process.run, { "sh", "-c", words }, 1000, 1000)
        for _ = 1, 4 do gate:send(true) end
        local url, shown
        assert.is_true(fixture.eventually(function()
          url = support.read_file(said):match "metrics: (http://%S+)\n"
          return url
        end))
        assert.is_true(fixture.eventually(function()
          local top = { support.binary, "top", "--once", "--interval=0", url }
          shown = assert(process.run(top, 1 << 20, 1 << 20)).out
          return shown:find("4 rows done of 10 (40%)", 1, true)
        end), shown)
        assert.matches("at once 6/10", shown, 1, true)
        assert.matches("\nrivers +", shown)
        assert.matches("waiting for\n", shown)
        for _ = 1, 6 do gate:send(true) end
        assert.equal(0, running:join().status, support.read_file(said))
        os.remove(input .. ".out")
        os.remove(input .. ".out.journal")
      end)
    end)
  end)
end)
