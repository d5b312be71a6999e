-- SPDX-License-Identifier: MIT
-- A/B reports over a log in SQLite: the same as over its rows, in both dialects, and what is wrong with other tables.

local database = require "sluice.report.database"
local fixture = require "server_fixture"
local log = require "report_log"
local report = require "sluice.report"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"

local describe = support.needing("sqlite", describe, pending)

local COLUMNS <const> = {
  "timestamp_ms", "status_code", "execution_time_ms", "variant", "ttft_ms", "input_tokens", "output_tokens",
  "cache_result", "error_kind",
}

local function open(rows, columns, name)
  local db = fixture.need(require("sluice.sqlite").open ":memory:")
  columns = columns or COLUMNS
  name = name or "inference_log"
  fixture.need(db:exec(("CREATE TABLE %s(%s)"):format(name, table.concat(columns, ", "))))
  local marks = ("?, "):rep(#columns - 1) .. "?"
  fixture.need(db:transaction(function(inner)
    for _, row in ipairs(rows) do
      local values = {}
      for index, column in ipairs(columns) do values[index] = row[column] end
      fixture.need(inner:exec(("INSERT INTO %s VALUES (%s)"):format(name, marks),
        table.unpack(values, 1, #columns)))
    end
    return true
  end))
  return db
end

local function ab(source, more)
  local given = { source = source, control = "old" }
  for name, value in pairs(more or {}) do given[name] = value end
  return report.ab(given)
end

local VERSIONS <const> = { old = { share = 60, ttft = 40 }, new = { share = 40, errors = 0.1, ttft = 50 } }

describe("report.ab over SQLite", function()
  it("is the same as over the rows, nulls and clocks that were set included", function()
    local rows = log.rows(1500, VERSIONS)
    for index, row in ipairs(rows) do
      if index % 50 == 0 then row.cache_result = "hit" end
      if index % 70 == 0 then row.variant = nil end
      if index % 90 == 0 then row.execution_time_ms = -5 end
      if index % 110 == 0 then row.status_code, row.input_tokens = nil, nil end
    end
    local db <close> = open(rows)
    for _, more in ipairs { {}, { since = 1.7e9 + 300, before = 1.7e9 + 900 }, { since = 1.8e9 } } do
      local from_rows, from_db = ab(rows, more), fixture.need(ab(db, more))
      from_rows.made, from_db.made = 0, 0
      assert.equal(from_rows:json(), from_db:json())
    end
  end)

  it("reads the warehouse's columns, names in JSON, and another table", function()
    local rows = log.rows(600, VERSIONS)
    for _, row in ipairs(rows) do
      row.request_metadata = ('{"model_name":"%s"}'):format(row.variant)
      row.request_time = os.date("!%Y-%m-%d %H:%M:%S.250", row.timestamp_ms // 1000)
      row.execution_duration_ms = row.execution_time_ms
    end
    local columns = { "request_time", "status_code", "execution_duration_ms", "request_metadata" }
    local db <close> = open(rows, columns, "logs")
    local made = fixture.need(ab(db, {
      table = "main.logs", by = "request_metadata.model_name",
      since = 1.7e9 + 101.25, before = 1.7e9 + 301.25,
    }))
    assert.equal(200, made.variants[1].requests + made.variants[2].requests)
    assert.is_true(made.variants[1].latency.count > 50)
    assert.same({ "this log has no ttft_ms, input_tokens, output_tokens" }, made.notes)
  end)

  it("says what a log lacks, and refuses another version", function()
    local db <close> = open({}, { "variantt", "status_code" })
    local made, err = ab(db)
    assert.same({ nil, "SchemaMismatch" }, { made, err.kind })
    assert.matches('no column "variant" %(did you mean "variantt"', err.message)
    local timeless <close> = open({}, { "variant", "status_code" })
    assert.equal("SchemaMismatch", select(2, ab(timeless, { since = 5 })).kind)
    assert.equal("inconclusive", fixture.need(ab(timeless)).verdict)
    fixture.need(timeless:exec "PRAGMA user_version = 9")
    made, err = ab(timeless)
    assert.is_nil(made)
    assert.matches("of version 9, and this program knows version 1", err.message)
    made, err = ab(db, { table = "nowhere" })
    assert.same({ nil, "DatabaseError" }, { made, err.kind })
    for _, name in ipairs { "a; DROP TABLE b", "a.b.c", 'a"' } do
      assert.has_error(function() database.of("report.ab", db, name) end)
    end
  end)

  it("reads what layers.capture writes of a split, while it writes", function()
    local path = os.tmpname()
    os.remove(path)
    local store <close> = fixture.need(sluice.capture.open(path))
    local function version(name, fails)
      return { name = name, query = function()
        if fails and math.random() < 0.5 then
          return nil, sluice.errors.new("InternalError", { status = 500, message = "no" })
        end
        return { choices = {}, usage = { prompt_tokens = 3, completion_tokens = 5 } }
      end }
    end
    local split = sluice.traffic.split { { version "old", 50 }, { version("new", true), 50 }, seed = 3 }
    local chat = sluice.pipeline(split, { sluice.layers.capture { store = store } })
    for _ = 1, 500 do chat:query { messages = {} } end
    local made = fixture.need(ab(store, { split = { old = 50, new = 50 }, since = task.wall() - 60 }))
    assert.equal("worse", made.verdict, made:text())
    assert.same({ 500, 3 },
      { made.variants[1].requests + made.variants[2].requests, made.variants[1].input_tokens.value })
    assert.equal(500, fixture.need(database.of_store("report.ab", store):read { by = { "variant" } }).rows)
    for _, more in ipairs { "", "-wal", "-shm" } do os.remove(path .. more) end
  end)

  it("ends with the task that reads", function()
    local db <close> = open(log.rows(3000, VERSIONS))
    local t = task.spawn(function() return ab(db) end)
    t:cancel "enough"
    assert.is_false((pcall(t.join, t)))
    assert.equal("worse", fixture.need(ab(db)).verdict)
  end)
end)
