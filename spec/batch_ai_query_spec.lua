-- SPDX-License-Identifier: MIT

local batch = require "sluice.batch"
local emulator = require "sluice.emulator"
local errors = require "sluice.errors"
local json = require "sluice.json"
local output = require "sluice.batch.output"
local progress = require "sluice.progress"
local prompts = require "sluice.batch.prompts"
local row = require "sluice.batch.row"
local sluice = require "sluice"
local support = require "support"
local task = require "sluice.task"
local warehouse = require "sluice.batch.warehouse"

local describe_with_sqlite = support.needing("sqlite", describe, pending)

describe("the prompt of a row", function()
  it("is its prompt, or its one message", function()
    assert.equal("a", prompts.of_request(1, { prompt = "a" }))
    assert.equal("b", prompts.of_request(1, { messages = { { role = "user", content = "b" } }, model = "x" }))
    for part, request in pairs {
      ["no prompt and no messages"] = {},
      ["2 messages"] = { messages = { { role = "system", content = "s" }, { role = "user",
      content = "u" } } },
      ["takes one of the user"] = { messages = { { role = "system", content = "s" } } },
      ["content is no text"] = { messages = { { role = "user", content = { { type = "text" } } } } },
      ["max_tokens, which ai_query takes for all rows only"] = { prompt = "a", max_tokens = 7 },
    } do
      local prompt, err = prompts.of_request(3, request)
      assert.is_nil(prompt)
      assert.equal("MalformedRow", err.kind)
      assert.is_truthy(err.message:find(part, 1, true), err.message)
      assert.matches("^row 3 ", err.message)
    end
  end)

  it("goes into a statement whose texts are quoted", function()
    local statement = prompts.statement_of_rows {
      endpoint = "it's\\", model_parameters = { temperature = 0.5, stop = "'", stream = false,
        max_tokens = 7 },
    }
    assert.equal([[SELECT pos, ai_query('it\'s\\', col, failOnError => false, ]]
      .. [[modelParameters => named_struct(]]
      .. [['max_tokens', 7, 'stop', '\'', 'stream', false, 'temperature', 0.5)]]
      .. [[) AS answer FROM posexplode(from_json(:rows, 'ARRAY<STRING>')) ORDER BY pos]], statement)
    assert.equal("SELECT `my id` AS id, ai_query('e', `p``q`, failOnError => false) AS answer FROM \z
      `a`.`b-c`.`d e`",
      prompts.statement_of_table { endpoint = "e", input = "a.`b-c`.`d e`", id = "my id", prompt = "p`q" })
    for _, name in ipairs { "questions.jsonl/x", "a.b.c.d", "a..b", "t; DROP TABLE x", "a.`b", "" } do
      assert.has_error(function() prompts.statement_of_table { endpoint = "e", input = name } end)
    end
    assert.has_error(function() prompts.statement_of_rows { endpoint = "e",
      model_parameters = { a = {} } } end)
    assert.has_error(function() prompts.statement_of_rows { endpoint = "e",
      model_parameters = { a = 0 / 0 } } end)
  end)
end)

describe("an answer of ai_query", function()
  it("is read under all the names it has had", function()
    for _, cell in ipairs {
      { result = "yes", errorMessage = json.null }, { response = "yes", errorStatus = json.null }, "yes",
        { result = "yes" },
    } do
      local response, err = prompts.read_answer("e", 1, cell)
      assert.is_nil(err)
      assert.equal("yes", response.choices[1].message.content)
      assert.same({ "chat.completion", "e", "assistant" }, {
        response.object, response.model, response.choices[1].message.role,
      })
    end
    for kind, cell in pairs {
      MalformedRow = json.null, ProtocolError = { odd = 1 },
      RequestLimitExceeded = { errorStatus = "REQUEST_LIMIT_EXCEEDED: too many" },
    } do
      local response, err = prompts.read_answer("e", 1, cell)
      assert.is_nil(response)
      assert.equal(kind, err.kind)
    end
  end)

  it("has typed errors", function()
    for text, wanted in pairs {
      ["RESOURCE_DOES_NOT_EXIST: no such"] = { "ResourceDoesNotExist", "RESOURCE_DOES_NOT_EXIST", "no such" },
      ["[AI_FUNCTION_HTTP_REQUEST_ERROR] failed: {\"error_code\":\"BAD_REQUEST\",\"message\":\"m\"}. \z
        SQLSTATE: 08000"] =
        { "BadRequest", "BAD_REQUEST", "m" },
      ["[AI_FUNCTION_X.Y] words"] = { "APIError", "AI_FUNCTION_X.Y", "[AI_FUNCTION_X.Y] words" },
      ["HTTP_503: away"] = { "TemporarilyUnavailable", "HTTP_503", "away" },
      ["INTERNAL_ERROR: broke"] = { "InternalError", "INTERNAL_ERROR", "broke" },
      ["just words {not json}"] = { "APIError", nil, "just words {not json}" },
    } do
      local err = prompts.error_of("e", text)
      assert.same(wanted, { err.kind, err.code, err.message })
      assert.equal("e", err.object)
    end
  end)
end)

describe("where a batch writes", function()
  it("is a list, a function, an object or a file", function()
    local sink, opened = output.open(nil)
    sink:write "x"
    assert.same({ "x" }, opened.results)
    local got
    sink = output.open(function(result) got = result end)
    assert.is_true(sink:write(7))
    assert.equal(7, got)
    local object = { write = function() return true end }
    assert.equal(object, (output.open(object)))
    local none, err = output.open "/nowhere/at/all"
    assert.is_nil(none)
    assert.equal("FileError", err.kind)
  end)
end)

-- A workspace whose model says its prompt again, and breaks at "bad".
local function start(options)
  options = options or {}
  options.deploy_time = 0
  options.models = {
    parrot = function(request)
      task.sleep(options.latency or 0)
      local text = request.messages[1].content
      if text == "bad" then
        return nil, { status = 429, code = "REQUEST_LIMIT_EXCEEDED", message = "slow down" }
      end
      return text .. (request.max_tokens and "!" or "")
    end,
  }
  local made = assert(emulator.new(options))
  local w = assert(sluice.workspace { transport = made.app, token = "dapi-of-ai-query", warehouse_id = "w" })
  assert(w.serving_endpoints:create_and_wait {
    name = "parrot",
    config = {
      served_entities = { { entity_name = "main.d.parrot", entity_version = "1" } },
      auto_capture_config = { enabled = true, catalog_name = "c", schema_name = "s",
      table_name_prefix = "log" },
    },
  })
  return w, made
end

local function told(results)
  local list = {}
  for index, each in ipairs(results) do
    local text = each.response and each.response.choices[1].message.content or each.error.kind
    list[index] = ("%d %s %s"):format(each.row, tostring(each.id), text)
  end
  return list
end

describe_with_sqlite("batch.ai_query", function()
  it("asks rows that are sent, and gives each its answer or its error", function()
    task.simulate(function()
      local w = start()
      local summary = assert(batch.ai_query {
        workspace = w, endpoint = "parrot",
        input = {
          { id = "a", prompt = "one's \\ \"two\"" }, { custom_id = 7, messages = { { role = "user",
            content = "two" } } }, "{broken",
          { prompt = "bad" }, { messages = {} }, '{"id":"f","prompt":"six"}',
        },
      })
      assert.same({
        "1 a one's \\ \"two\"", "2 7 two", "3 nil MalformedRow", "4 nil RequestLimitExceeded",
          "5 nil MalformedRow", "6 f six",
      }, told(summary.results))
      assert.same({ 6, 3, 3, true, false }, {
        summary.rows, summary.ok, summary.failed, summary.complete, summary.resumable,
      })
      assert.same({ MalformedRow = 2, RequestLimitExceeded = 1 }, summary.errors)
      assert.equal("slow down", summary.results[4].error.message)
    end)
  end)

  it("sends so many in a statement, in their order, for every kind of input", function()
    task.simulate(function()
      local w, made = start()
      local statements, lines, at = 0, {}, 0
      local submit = made.statements.submit
      made.statements.submit = function(...)
        statements = statements + 1
        return submit(...)
      end
      local summary = assert(batch.ai_query {
        workspace = w, endpoint = "parrot", rows_per_statement = 3, model_parameters = { max_tokens = 5 },
        input = function()
          at = at + 1
          return at <= 7 and { prompt = "p" .. at } or nil
        end,
        output = { write = function(_, line)
          lines[#lines + 1] = line
          return true
        end },
      })
      assert.equal(3, statements)
      assert.is_nil(summary.results)
      local text = table.concat(lines)
      local number = 0
      for line in text:gmatch "(.-)\n" do
        number = number + 1
        local parsed = assert(row.parse(line))
        assert.same({ number, "p" .. number .. "!" }, { parsed.row,
          parsed.response.choices[1].message.content })
      end
      assert.equal(7, number)
      assert.equal(0, assert(batch.ai_query { workspace = w, endpoint = "parrot", input = {} }).rows)
    end)
  end)

  it("writes lines as batch.run's, a report, and no second time", function()
    support.with_file("", function(path)
      task.simulate(function()
        local w = start()
        local report = path .. ".report"
        assert(batch.ai_query {
          workspace = w, endpoint = "parrot", input = { { id = 1, prompt = "x" }, { prompt = "bad" } },
            output = path,
          report = report,
        })
        local first, second = support.read_file(path):match "^(.-)\n(.-)\n$"
        assert.equal("x", row.parse(first).response.choices[1].message.content)
        assert.matches('^{"row":2,"id":null,"error":{', second)
        assert.equal(2, json.decode(support.read_file(report)).rows)
        os.remove(report)
        local none, err = batch.ai_query { workspace = w, endpoint = "parrot", input = {}, output = path }
        assert.is_nil(none)
        assert.equal("BatchConflict", err.kind)
      end)
    end)
  end)

  it("asks a table of the warehouse, by links", function()
    task.simulate(function()
      local w = start { chunk_rows = 4 }
      for index = 1, 9 do
        assert(w:endpoint("parrot"):query {
          messages = { { role = "user", content = "q" .. index } }, client_request_id = "id-" .. index,
        })
      end
      local summary = assert(batch.ai_query {
        workspace = w, endpoint = "parrot", input = "c.s.log_payload", prompt = "client_request_id",
          id = "client_request_id",
      })
      assert.same({ 9, 9 }, { summary.rows, summary.ok })
      table.sort(summary.results, function(a, b) return a.id < b.id end)
      for index, each in ipairs(summary.results) do
        assert.same({ "id-" .. index, "id-" .. index }, { each.id, each.response.choices[1].message.content })
      end
    end)
  end)

  it("ends as a whole where the warehouse refuses, and tells what was done", function()
    task.simulate(function()
      local w = start()
      local function refused(kind, part, more)
        local given = { workspace = w, endpoint = "parrot", input = "c.s.log_payload" }
        for name, value in pairs(more) do given[name] = value end
        local summary, err = batch.ai_query(given)
        assert.is_nil(summary)
        assert.equal(kind, err.kind)
        assert.is_truthy(tostring(err):find(part, 1, true), tostring(err))
        assert.is_false(err.summary.complete)
        return err
      end
      refused("BadRequest", "A column `prompt` cannot be resolved", {})
      refused("BadRequest", "TABLE_OR_VIEW_NOT_FOUND", { input = "c.s.nothing" })
      local done = refused("BadRequest", "no such column", {
        rows_per_statement = 1, input = { { prompt = "a" }, { prompt = "b" } },
        output = function()
          error(errors.new("BadRequest", { message = "no such column" }), 0)
        end,
      })
      assert.equal(1, done.summary.rows)
      local bare = assert(sluice.workspace { transport = start and select(2, start()).app,
        token = "dapi-of-ai-query" })
      local _, err = batch.ai_query { workspace = bare, endpoint = "parrot", input = { { prompt = "a" } } }
      assert.equal("ConfigError", err.kind)
    end)
  end)

  it("cancels its statement with its task, and shows how it stands", function()
    task.simulate(function()
      local w, made = start { latency = 100 }
      local cancelled = 0
      local cancel = made.statements.cancel
      made.statements.cancel = function(...)
        cancelled = cancelled + 1
        return cancel(...)
      end
      local written = {}
      local bar <close> = progress.bar { total = 1,
        output = { write = function(bytes) written[#written + 1] = bytes end },
        interval = 0 }
      local job = task.spawn(function()
        return batch.ai_query { workspace = w, endpoint = "parrot", input = { { prompt = "a" } },
          progress = bar }
      end)
      task.sleep(5)
      job:cancel "enough"
      assert.is_false((pcall(job.join, job)))
      assert.equal(1, cancelled)
      assert.matches("running", table.concat(written))
      local summary, err = batch.ai_query {
        workspace = w, endpoint = "parrot", input = { { prompt = "a" } }, timeout = 3,
      }
      assert.is_nil(summary)
      assert.equal("OperationTimeout", err.kind)
      assert.equal(2, cancelled)
    end)
  end)

  it("refuses misuse with the right name", function()
    local w = start()
    for part, given in pairs {
      ['"workspace" must be made by sluice.workspace'] = { workspace = {}, endpoint = "e", input = {} },
      ['"endpoint" is missing'] = { workspace = w, input = {} },
      ['"warehouse_id" (did you mean "warehouse"?)'] = { workspace = w, endpoint = "e", input = {},
      warehouse_id = "x" },
      ['"prompt" is of a table as input'] = { workspace = w, endpoint = "e", input = {}, prompt = "x" },
      ["questions.jsonl"] = { workspace = w, endpoint = "e", input = "/tmp/questions.jsonl" },
    } do
      local ok, text = pcall(batch.ai_query, given)
      assert.is_false(ok)
      assert.is_truthy(tostring(text):find(part, 1, true), tostring(text))
    end
    assert.is_function(warehouse.run)
  end)
end)

local with_server = support.has "server" and describe_with_sqlite or support.needing("server", describe,
  pending)

with_server("scripts/ai_query.lua", function()
  it("asks a table of its own, and tells how it ended", function()
    local run = support.sluice("--emulator", "scripts/ai_query.lua")
    assert.equal(0, run.status, run.err)
    local seen = {}
    for line in run.out:gmatch "(.-)\n" do
      local parsed = assert(row.parse(line))
      seen[parsed.id] = parsed.response.choices[1].message.content
    end
    for i = 1, 5 do assert.equal("question " .. i, seen["question " .. i]) end
    assert.matches("5 rows: 5 answered, 0 failed", run.err)
  end)

  it("says what is wrong with its arguments", function()
    for part, words in pairs {
      ["unknown option --nothing"] = { "--nothing", "x" }, ["--table needs a value"] = { "--table" },
      ["--table is missing"] = { "--endpoint", "e" },
    } do
      local run = support.sluice("--emulator", "scripts/ai_query.lua", table.unpack(words))
      assert.equal(2, run.status)
      assert.is_truthy(run.err:find(part, 1, true), run.err)
    end
    local run = support.sluice("--emulator", "scripts/ai_query.lua", "--endpoint", "e", "--table", "a.b.c",
      "--output", "-")
    assert.equal(1, run.status)
    assert.matches("TABLE_OR_VIEW_NOT_FOUND", run.err)
  end)
end)
