-- SPDX-License-Identifier: MIT

local cells = require "sluice.sql.cells"
local errors = require "sluice.errors"
local json = require "sluice.json"
local parameters = require "sluice.sql.parameters"
local result = require "sluice.sql.result"
local sluice = require "sluice"
local sql = require "sluice.sql"
local statement = require "sluice.sql.statement"
local task = require "sluice.task"
local web = require "sluice.web"

local PATH <const> = "/api/2.0/sql/statements"

local function columns(...)
  local list = json.array {}
  for index, each in ipairs { ... } do
    list[index] = { name = each[1], type_name = each[2], type_precision = each[3], position = index - 1 }
  end
  return { schema = { columns = list, column_count = #list }, total_row_count = 3 }
end

-- A warehouse whose answers are scripted: each look takes the next of `states`.
local function warehouse(script)
  local app, seen = web.app {}, { looks = 0, cancelled = {}, chunks = {} }
  local function answer(state)
    local made = { statement_id = "s-1", status = { state = state, error = script.error,
      sql_state = script.sql_state } }
    if state == "SUCCEEDED" then made.manifest, made.result = script.manifest, script.result end
    return { status = 200, json = made }
  end
  app:post(PATH, function(request)
    seen.body = request:json()
    if script.submit_time then task.sleep(script.submit_time) end
    return answer(script.first or "PENDING")
  end)
  app:get(PATH .. "/:id", function()
    seen.looks = seen.looks + 1
    local state = script.states and script.states[math.min(seen.looks, #script.states)] or "SUCCEEDED"
    if type(state) == "number" then
      return { status = state, json = { error_code = "RESOURCE_DOES_NOT_EXIST", message = "not yet" } }
    end
    return answer(state)
  end)
  app:get(PATH .. "/:id/result/chunks/:n", function(request)
    seen.chunks[#seen.chunks + 1] = tonumber(request.params.n)
    return { status = 200, json = script.chunks[tonumber(request.params.n)] }
  end)
  app:post(PATH .. "/:id/cancel", function(request)
    seen.cancelled[#seen.cancelled + 1] = request.params.id
    return { status = 200, json = {} }
  end)
  app:get("/signed/:name", function(request)
    seen.authorization = request.headers.authorization
    local made = script.links[request.params.name]
    if type(made) == "number" then return { status = made, body = "expired" } end
    return { status = 200, body = made }
  end)
  local workspace = assert(sluice.workspace { transport = app, token = "dapi-of-sql-spec",
    warehouse_id = "wh-1" })
  return workspace.sql, seen
end

local ONE <const> = { manifest = columns { "n", "BIGINT" }, result = { data_array = json.array { { "7" } } } }

local function with(more)
  local made = {}
  for _, each in ipairs { ONE, more } do
    for name, value in pairs(each) do made[name] = value end
  end
  return made
end

describe("workspace.sql", function()
  it("gives cells by the types of their columns", function()
    task.simulate(function()
      local w = warehouse {
        manifest = columns({ "i", "INT" }, { "big", "BIGINT" }, { "d", "DOUBLE" }, { "b", "BOOLEAN" },
          { "s", "STRING" },
          { "at", "TIMESTAMP" }, { "day", "DATE" }, { "m", "MAP" }, { "small", "DECIMAL", 4 }, { "large",
            "DECIMAL", 30 },
          { "i", "INT" }),
        result = { data_array = json.array {
          { "1", "9223372036854775807", "1.0E10", "true", "7", "2026-01-31T00:00:00.000Z", "2026-01-31",
            '{"a":[1]}', "1.50",
            "123456789012345678901.5", "2" },
          { json.null, json.null, "NaN", "false", "", json.null, json.null, json.null, json.null,
            json.null, "3" },
          json.array { "-5", "0", "-Infinity" },
        } },
      }
      local found = assert(w:execute "SELECT ...")
      assert.equal("BIGINT", found.columns[2].type)
      assert.same({ "i", "i_2" }, { found.columns[1].name, found.columns[11].name })
      local rows = assert(found:collect())
      assert.same({
        i = 1, big = math.maxinteger, d = 1e10, b = true, s = "7", at = "2026-01-31T00:00:00.000Z",
          day = "2026-01-31",
        m = { a = { 1 } }, small = 1.5, large = "123456789012345678901.5", i_2 = 2,
      }, rows[1])
      assert.same({ "integer", "float" }, { math.type(rows[1].big), math.type(rows[1].d) })
      assert.is_true(rows[2].d ~= rows[2].d)
      assert.same({ false, "", 3 }, { rows[2].b, rows[2].s, rows[2].i_2 })
      assert.is_nil(rows[2].i)
      assert.same({ i = -5, big = 0, d = -math.huge }, rows[3])
      assert.is_nil(found:next())
      assert.matches("11 columns, 3 rows", tostring(found))
    end)
  end)

  it("looks again, ever more rarely, and tells of each look", function()
    task.simulate(function()
      local states = { "PENDING", "RUNNING", "RUNNING", "RUNNING", "SUCCEEDED" }
      local w, seen = warehouse(with { states = states })
      local told, started = {}, task.now()
      local found = assert(w:execute("SELECT 7 AS n", {
        on_poll = function(answer, elapsed) told[#told + 1] = answer.status.state .. (elapsed >= 0 and ""
          or "?") end,
      }))
      assert.same({ "PENDING", "PENDING", "RUNNING", "RUNNING", "RUNNING", "SUCCEEDED" }, told)
      assert.is_true(task.now() - started > 1.5 and task.now() - started < 2)
      assert.equal(5, seen.looks)
      assert.same({ { n = 7 } }, found:collect())
      assert.same({}, seen.cancelled)
      assert.same({ "0s", "wh-1", "SELECT 7 AS n", "JSON_ARRAY" },
        { seen.body.wait_timeout, seen.body.warehouse_id, seen.body.statement, seen.body.format })
    end)
  end)

  it("takes a server that does not know a new statement yet", function()
    task.simulate(function()
      local w = warehouse(with { states = { 404, 404, "SUCCEEDED" } })
      assert.same({ { n = 7 } }, assert(w:execute "SELECT 7"):collect())
    end)
  end)

  it("makes an error of a 200 that has failed", function()
    task.simulate(function()
      for code, kind in pairs {
        BAD_REQUEST = "BadRequest", NOT_FOUND = "NotFound", RESOURCE_EXHAUSTED = "ResourceExhausted",
        DEADLINE_EXCEEDED = "DeadlineExceeded", SERVICE_UNDER_MAINTENANCE = "TemporarilyUnavailable",
        NEW_ONE = "APIError",
      } do
        local w, seen = warehouse {
          first = "FAILED", error = { error_code = code, message = "[X] why" }, sql_state = "42P01",
        }
        local found, err = w:execute "SELECT"
        assert.is_nil(found)
        assert.same({ kind, code, "42P01", "s-1", "[X] why" },
          { err.kind, err.code, err.sql_state, err.statement_id, err.message })
        assert.same({}, seen.cancelled)
      end
      local _, err = warehouse({ first = "CANCELED" }):execute "SELECT"
      assert.equal("Cancelled", err.kind)
      _, err = warehouse({ first = "CLOSED" }):execute "SELECT"
      assert.equal("OperationFailed", err.kind)
      _, err = warehouse({ first = "ODD" }):execute "SELECT"
      assert.equal("ProtocolError", err.kind)
    end)
  end)

  it("sends parameters with their types", function()
    task.simulate(function()
      local w, seen = warehouse(with {})
      assert(w:execute("SELECT :a", {
        parameters = {
          a = "x", b = 7, c = 1.5, d = true, e = json.null, f = { value = "2026-01-31", type = "DATE" },
            g = { type = "INT" },
        },
        catalog = "c", schema = "s", row_limit = 3, wait_timeout = 5, on_wait_timeout = "CANCEL",
        warehouse_id = "other",
      }))
      assert.same({
        { name = "a", type = "STRING", value = "x" }, { name = "b", type = "BIGINT", value = "7" },
        { name = "c", type = "DOUBLE", value = "1.5" }, { name = "d", type = "BOOLEAN", value = "true" },
        { name = "e", type = "STRING", value = json.null }, { name = "f", type = "DATE",
        value = "2026-01-31" },
        { name = "g", type = "INT", value = json.null },
      }, seen.body.parameters)
      assert.same({ "c", "s", 3, "5s", "CANCEL", "other" }, {
        seen.body.catalog, seen.body.schema, seen.body.row_limit, seen.body.wait_timeout,
          seen.body.on_wait_timeout,
        seen.body.warehouse_id,
      })
      assert.same({ { name = "x", type = "DOUBLE", value = "NaN" } }, parameters.of("f", { x = 0 / 0 }))
    end)
  end)

  it("refuses misuse with the right name", function()
    local w = warehouse {}
    local function raises(part, ...)
      local ok, text = pcall(w.execute, w, ...)
      assert.is_false(ok)
      assert.is_truthy(tostring(text):find(part, 1, true), tostring(text))
    end
    raises('argument "statement"', "")
    raises('unknown option "warehouse" (did you mean "warehouse_id"?)', "SELECT", { warehouse = "x" })
    raises("0, or 5 to 50 seconds", "SELECT", { wait_timeout = 3 })
    raises('"parameters": p is a function', "SELECT", { parameters = { p = print } })
    raises("values are given by name", "SELECT", { parameters = { 1 } })
    raises("has no type", "SELECT", { parameters = { p = { value = 1 } } })
    raises('"INLINE" or "EXTERNAL_LINKS"', "SELECT", { disposition = "inline" })
    assert.has_error(function() return w.execut end)
    assert.has_error(function() w.execute("SELECT") end)
  end)

  it("needs a warehouse: an option, a setting of the workspace, or none", function()
    local workspace = assert(sluice.workspace { transport = web.app {} })
    local found, err = workspace.sql:execute "SELECT 1"
    assert.is_nil(found)
    assert.equal("ConfigError", err.kind)
    assert.matches("DATABRICKS_WAREHOUSE_ID", tostring(err))
    workspace = assert(sluice.workspace { transport = web.app {}, warehouse_id = "abc" })
    assert.equal("abc", workspace:describe().warehouse_id.value)
    assert.equal(workspace.sql, workspace.sql)
    assert.is_table(sql.new(workspace._client, {}))
  end)
end)

describe("a statement that nobody waits for any more", function()
  it("is cancelled with its task", function()
    task.simulate(function()
      local w, seen = warehouse(with { states = { "RUNNING" } })
      local job = task.spawn(function() return w:execute "SELECT slow" end)
      task.sleep(3)
      job:cancel "enough"
      assert.is_false((pcall(job.join, job)))
      assert.same({ "s-1" }, seen.cancelled)
      local looks = seen.looks
      task.sleep(60)
      assert.equal(looks, seen.looks)
    end)
  end)

  it("is cancelled at a deadline, and at its own time limit", function()
    task.simulate(function()
      local w, seen = warehouse(with { states = { "RUNNING" } })
      local _, err = task.timeout(2, w.execute, w, "SELECT slow")
      assert.equal("TimeoutError", err.kind)
      assert.same({ "s-1" }, seen.cancelled)
      local started = task.now()
      _, err = w:execute("SELECT slow", { timeout = 4 })
      assert.equal("OperationTimeout", err.kind)
      assert.matches("not done after 4 s; it was cancelled", tostring(err))
      assert.equal(4, math.floor(task.now() - started))
      assert.same({ "s-1", "s-1" }, seen.cancelled)
    end)
  end)

  it("is cancelled although its id was not known yet", function()
    task.simulate(function()
      local w, seen = warehouse(with { states = { "RUNNING" }, submit_time = 1 })
      local job = task.spawn(function() return w:execute "SELECT slow" end)
      task.sleep(0.5)
      job:cancel "enough"
      assert.is_false((pcall(job.join, job)))
      assert.same({ "s-1" }, seen.cancelled)
      assert.equal(0, seen.looks)
    end)
  end)

  it("is cancelled where it can no longer be looked at", function()
    task.simulate(function()
      local w, seen = warehouse(with { states = { "RUNNING", "RUNNING", "RUNNING", "RUNNING", "RUNNING",
        "RUNNING", "RUNNING",
        "RUNNING", "RUNNING", 404 } })
      local _, err = w:execute "SELECT lost"
      assert.equal("ResourceDoesNotExist", err.kind)
      assert.same({ "s-1" }, seen.cancelled)
    end)
  end)

  it("is left alone once it has ended", function()
    local cancelled
    local answer = { statement_id = "x", status = { state = "SUCCEEDED" } }
    local calls = { submit = function() return answer end, cancel = function() cancelled = true end }
    assert.equal(answer, statement.run(calls, {}, 5))
    assert.is_nil(cancelled)
  end)
end)

describe("a result", function()
  local function chunk(first, last, following)
    local rows = json.array {}
    for n = first, last do rows[#rows + 1] = { tostring(n) } end
    return { data_array = rows, next_chunk_index = following }
  end

  it("comes chunk after chunk, each when it is needed", function()
    task.simulate(function()
      local w, seen = warehouse {
        manifest = columns { "n", "BIGINT" }, result = chunk(1, 2, 1),
        chunks = { chunk(3, 4, 2), chunk(5, 5) },
      }
      local found, list = assert(w:execute "SELECT n"), {}
      for row in found:rows() do
        list[#list + 1] = row.n
        if row.n == 2 then assert.same({}, seen.chunks) end
        if row.n == 4 then assert.same({ 1 }, seen.chunks) end
      end
      assert.same({ 1, 2, 3, 4, 5 }, list)
      assert.same({ 1, 2 }, seen.chunks)
    end)
  end)

  it("holds one chunk at a time", function()
    local held = setmetatable({}, { __mode = "k" })
    local function made(index)
      local data = chunk(index * 10 + 1, index * 10 + 10, index < 20 and index + 1 or nil)
      held[data.data_array] = true
      return data
    end
    local source = { chunk = function(_, index) return made(index) end }
    local found = assert(result.new(source, { statement_id = "s", manifest = columns { "n", "INT" },
      result = made(0) }))
    local count = 0
    for _ in found:rows() do
      count = count + 1
      if count % 50 == 0 then
        collectgarbage()
        local alive = 0
        for _ in pairs(held) do alive = alive + 1 end
        assert.is_true(alive <= 2, alive)
      end
    end
    assert.equal(210, count)
  end)

  it("follows links without a token, and asks for new ones once", function()
    task.simulate(function()
      local function link(name, index, following)
        return { external_link = "http://localhost/signed/" .. name .. "?key=k", chunk_index = index,
          next_chunk_index = following }
      end
      local w, seen = warehouse {
        manifest = columns { "n", "BIGINT" }, result = { external_links = json.array { link("old", 0, 1) } },
        chunks = { [0] = { external_links = json.array { link("a", 0, 1) } },
        [1] = { external_links = json.array { link("b", 1) } } },
        links = { old = 403, a = '[["1"],["2"]]', b = '[["3"]]' },
      }
      assert.same({ { n = 1 }, { n = 2 }, { n = 3 } }, assert(w:execute("SELECT n",
        { disposition = "EXTERNAL_LINKS" })):collect())
      assert.same({ 0, 1 }, seen.chunks)
      assert.is_nil(seen.authorization)
      w = warehouse {
        manifest = columns { "n", "BIGINT" }, result = { external_links = json.array { link("old", 0) } },
        chunks = { [0] = { external_links = json.array { link("old", 0) } } }, links = { old = 403 },
      }
      local rows, err = assert(w:execute "SELECT n"):collect()
      assert.is_nil(rows)
      assert.equal("PermissionDenied", err.kind)
      assert.is_nil(tostring(err):find("key=k", 1, true))
    end)
  end)

  it("that is broken is told so", function()
    local function read(data, manifest, source)
      local answer = { statement_id = "s", manifest = manifest or columns { "n", "INT" }, result = data }
      local found, err = result.new(source or {}, answer)
      if not found then return nil, err end
      return found:collect()
    end
    local function refused(part, ...)
      local rows, err = read(...)
      assert.is_nil(rows)
      assert.equal("ProtocolError", err.kind)
      assert.is_truthy(err.message:find(part, 1, true), err.message)
    end
    refused("of type INT, and a cell of it is x", { data_array = { { "x" } } })
    refused("of type INT, and a cell of it is 1.5", { data_array = { { "1.5" } } })
    refused("a cell of it is 7", { data_array = { { 7 } } })
    refused("a row is a string", { data_array = { "x" } })
    refused("comes next", { next_chunk_index = 1 }, nil,
      { chunk = function() return { next_chunk_index = 1 } end })
    refused("no list of rows", { external_links = { { external_link = "x" } } }, nil,
      { download = function() return "<html>" end })
    assert.same({}, read(nil))
    assert.same({}, read({ data_array = {} }, false))
    local found = assert(result.new({}, { statement_id = "s", manifest = columns { "n", "INT" },
      result = { data_array = { { "1" }, { "x" } } } }))
    local ok, raised = pcall(function() for _ in found:rows() do end end)
    assert.is_false(ok)
    assert.is_true(errors.is(raised))
    assert.is_nil(cells.reader { type = "STRING" })
    assert.same({}, cells.columns(nil))
    assert.same({}, cells.row({}, {}))
  end)
end)

describe("the calls of the SDKs", function()
  it("are there under their names", function()
    task.simulate(function()
      local w, seen = warehouse(with { chunks = { { data_array = json.array {} } } })
      local answer = assert(w:execute_statement { statement = "SELECT 1", warehouse_id = "x" })
      assert.equal("PENDING", answer.status.state)
      assert.equal("SUCCEEDED", assert(w:get_statement "s-1").status.state)
      assert.same({}, assert(w:get_statement_result_chunk_n("s-1", 1)).data_array)
      assert.same({}, w:cancel_execution "a/b")
      assert.same({ "a/b" }, seen.cancelled)
      assert.has_error(function() w:get_statement "" end)
      assert.has_error(function() w:get_statement_result_chunk_n("s-1", "1") end)
    end)
  end)
end)
