-- SPDX-License-Identifier: MIT

local caller = require "emulator_caller"
local expression = require "sluice.emulator.sql.expression"
local failure = require "sluice.emulator.sql.failure"
local functions = require "sluice.emulator.sql.functions"
local in_lua = require "sluice.emulator.sql.in_lua"
local json = require "sluice.json"
local sql = require "sluice.emulator.routes.sql"
local node = require "sluice.emulator.sql.node"
local parser = require "sluice.emulator.sql.parser"
local support = require "support"
local task = require "sluice.task"
local tokens = require "sluice.emulator.sql.tokens"
local types = require "sluice.emulator.sql.types"

local PATH <const> = "/api/2.0/sql/statements"
local describe_with_sqlite = support.needing("sqlite", describe, pending)

-- ---- reading, which needs no SQLite ----

local function refused(source)
  local ok, why = pcall(parser.parse, source)
  assert.is_false(ok, source:sub(1, 100))
  assert.is_true(failure.is(why), tostring(why))
  return (failure.on_wire(why, source))
end

describe("a failure of SQL", function()
  it("names what is not known, and where", function()
    local ok, why = pcall(failure.unsupported, 3, "MAGIC")
    assert.is_false(ok)
    local told, state = failure.on_wire(why, "a\nb")
    assert.equal("[UNSUPPORTED_FEATURE] MAGIC is not known to the emulator's SQL. SQLSTATE: 0A000 \z
      (line 2, pos 0)", told.message)
    assert.same({ "BAD_REQUEST", "0A000", false }, { told.error_code, state, failure.is "x" })
    ok, why = pcall(failure.raise, "INTERNAL_ERROR", nil, "%d%%", 7)
    assert.is_false(ok)
    assert.equal("INTERNAL_ERROR", (failure.on_wire(why, "")).error_code)
    assert.is_function(sql.add)
  end)
end)

describe("tokens of SQL", function()
  it("are words, names, strings, numbers, parameters and symbols", function()
    local list = tokens.read [[SELECT `a``b`, 'it\'s' || "x", r'\n', 1.5e3 :p x::int -- rest
      /* one /* in */ another */ <=> 7L]]
    local shown = {}
    for index, token in ipairs(list) do
      shown[index] = token.kind .. ":" .. tostring(token.value or token.text)
    end
    assert.same({
      "word:SELECT", "name:a`b", "symbol:,", "string:it's", "symbol:||", "string:x", "symbol:,",
        "string:\\n", "symbol:,",
      "number:1500.0", "parameter:p", "word:x", "symbol:::", "word:int", "symbol:<=>", "number:7",
      "end:end of input",
    }, shown)
    assert.equal("a\u{e9}b\\%", tokens.read [['a\u00e9b\%']][1].value)
  end)

  it("are refused with their place where they are none", function()
    for source, part in pairs {
      ["SELECT 'abc"] = "A string has no end", ["SELECT 'abc\\"] = "A string has no end",
        ["SELECT `abc"] = "name has no end",
      ["SELECT ``"] = "name is empty", ["SELECT /* 1"] = "A comment has no end",
      ["SELECT /* /* */ 1"] = "comment has no end",
      ["SELECT 'it''s'"] = "stand side by side", ["SELECT 12abc"] = "12abc is no number",
      ["SELECT \1"] = "byte 1",
      ["SELECT 1 \u{20ac}"] = "no place for \u{20ac}", ["SELECT \xff"] = "byte 255",
      ["SELECT #"] = "no place for #",
    } do
      assert.is_truthy(refused(source).message:find(part, 1, true), refused(source).message)
    end
    assert.matches("SQLSTATE: 42601 %(line 2, pos 3%)$", refused("SELECT 1,\n   'x").message)
  end)
end)

describe("a statement that is none the emulator knows", function()
  it("is refused with the name of what it has", function()
    for source, name in pairs {
      ["INSERT INTO t VALUES (1)"] = "INSERT", ["drop table t"] = "DROP", ["UPDATE t SET a = 1"] = "UPDATE",
      ["DELETE FROM t"] = "DELETE", ["MERGE INTO t"] = "MERGE", ["CREATE TABLE t (a INT)"] = "CREATE",
      ["PRAGMA table_info(log)"] = "PRAGMA", ["ATTACH 'x' AS y"] = "ATTACH", ["SHOW TABLES"] = "SHOW",
        ["SELECT 1; SELECT 2"] =
      "More than one statement", ["SELECT a FROM t JOIN u"] = "JOIN",
      ["SELECT a FROM t LEFT JOIN u"] = "LEFT",
      ["SELECT a FROM t UNION SELECT 1"] = "UNION", ["SELECT a FROM t, u"] = "A comma here",
      ["SELECT (SELECT 1)"] = "A subquery in an expression",
      ["SELECT 1 IN (SELECT 1)"] = "IN with a subquery",
      ["SELECT count(*) OVER () FROM t"] = "OVER",
      ["WITH RECURSIVE a AS (SELECT 1) SELECT 1"] = "WITH RECURSIVE",
      ["SELECT * FROM VALUES (1)"] = "The table function VALUES", ["SELECT a FROM t QUALIFY 1"] = "QUALIFY",
      ["SELECT a FROM t LATERAL VIEW explode(b)"] = "LATERAL", ["SELECT ? FROM t"] = "The parameter ?",
      ["SELECT * FROM range(10)"] = "The table function range", ["SELECT t.* FROM t"] = "t.*",
      ["SELECT a FROM t TABLESAMPLE (1 ROWS)"] = "TABLESAMPLE", ["SELECT (1, 2)"] = "A row of several values",
      ["SELECT INTERVAL '1 day 2 hours'"] = "An interval of several parts",
    } do
      local told = refused(source)
      assert.equal("BAD_REQUEST", told.error_code)
      assert.is_truthy(told.message:find("[UNSUPPORTED_FEATURE] " .. name, 1, true), told.message)
    end
  end)

  it("is refused where it is wrong", function()
    for source, part in pairs {
      [""] = "the statement is empty", ["-- nothing"] = "the statement is empty", ["SELECT"] = "end of input",
      ["SELECT FROM t"] = "near 'FROM'", ["SELECT a FROM"] = "end of input",
      ["SELECT a,, b"] = "near ',': an expression is missing",
      ["SELECT (1"] = ") is missing", ["SELECT 1)"] = "near ')'", ["SELECT CASE 1 END"] = "WHEN is missing",
      ["SELECT CASE WHEN 1 THEN 2"] = "END is missing",
      ["SELECT a FROM t WHERE"] = "an expression is missing",
      ["SELECT CAST(1 AS)"] = "a type is missing", ["SELECT a b c"] = "near 'c'",
      ["SELECT f(a => 1, 2)"] = "named argument",
      ["SELECT 1 IS 2"] = "NULL is missing", ["SELECT 1 IN ()"] = "a value is missing",
      ["WITH a SELECT 1"] = "AS is missing",
      ["SELECT x[1"] = "] is missing", ["SELECT 1 BETWEEN 2"] = "AND is missing", ["()"] = "near '('",
      [";"] = "near ';'",
    } do
      assert.is_truthy(refused(source).message:find(part, 1, true), source .. ": " .. refused(source).message)
    end
  end)

  it("cannot use up the stack or the memory", function()
    for _, source in ipairs {
      "SELECT " .. ("("):rep(20000) .. "1", "SELECT " .. ("-"):rep(1001) .. "\n" .. ("- "):rep(20000)
        .. "1",
      "SELECT " .. ("NOT "):rep(20000) .. "1", "SELECT 1" .. (" + 1"):rep(20000),
      "SELECT " .. ("CASE WHEN "):rep(10000),
      "SELECT a" .. ("[0]"):rep(10000), "SELECT " .. ("f("):rep(10000),
      "SELECT 1 FROM " .. ("(SELECT 1 FROM "):rep(10000),
      "SELECT 1 " .. ("+ x "):rep(20000), "SELECT 'a'" .. ("::int"):rep(10000),
    } do
      assert.matches("UNSUPPORTED_FEATURE", refused(source).message)
    end
    assert.matches("no end", refused("SELECT " .. ("/*"):rep(20000)).message)
    assert.matches("nested more than 200 deep", refused("SELECT 1" .. (" + 1"):rep(250)).message)
  end)

  it("is told from what only looks like it", function()
    local query = parser.parse "SELECT insert, `drop` FROM t -- ; DELETE\n WHERE a = 'DROP TABLE x;' /* \z
      ; */ ;"
    assert.equal(2, #query.items)
    assert.is_true(expression.reserved.WHERE)
    local cursor = node.cursor(tokens.read "GROUP BY x")
    assert.is_truthy(cursor:accept_all("GROUP", "BY"))
    assert.equal("x", cursor:ahead(0).text)
    assert.is_nil(cursor:accept "y")
    assert.equal(2, node.deepest { { depth = 1 }, { depth = 2 } }.depth)
    assert.equal("literal", node.new("literal", 1, {}).kind)
    assert.equal("column", expression.parse(cursor).kind)
  end)
end)

describe("what SQLite has no word for", function()
  it("casts as the warehouse does", function()
    for _, case in ipairs {
      { " 12 ", "INT", 12 }, { "12.9", "INT", 12 }, { "-3", "BIGINT", -3 }, { "1e3", "DOUBLE", 1000.0 },
        { "x", "INT", nil },
      { "9999999999", "INT", nil }, { "0x10", "DOUBLE", nil }, { "inf", "DOUBLE", math.huge }, { "yes",
      "BOOLEAN", 1 },
      { "F", "BOOLEAN", 0 }, { "maybe", "BOOLEAN", nil }, { "2026-2-3", "DATE", "2026-02-03" },
      { "2026-02-30", "DATE", nil },
      { "2024-02-29 10:00", "DATE", "2024-02-29" }, { "2026-01-01", "TIMESTAMP", "2026-01-01 00:00:00.000" },
      { "2026-01-01T01:30:00.1234+02:00", "TIMESTAMP", "2025-12-31 23:30:00.123" },
      { "2026-12-31 23:30-01:00", "TIMESTAMP", "2027-01-01 00:30:00.000" }, { "2026-01-01 25:00",
      "TIMESTAMP", nil },
    } do
      local text, to, wanted = table.unpack(case, 1, 3)
      assert.equal(wanted, in_lua.cast(text, to, 1), text)
      if wanted == nil then assert.has_error(function() in_lua.cast(text, to, 0) end) end
    end
    assert.is_nil(in_lua.cast(nil, "INT", 0))
    assert.equal("2024-02-29 10:00:00.000", in_lua.add_months("2024-03-31 10:00:00.000", -1))
    assert.equal("2027-01-31", in_lua.add_months("2026-12-31", 1))
    assert.equal(2, in_lua.divisor(2))
    assert.same({ 2.5, 4 }, { in_lua.percentile { 4, 1, count = 2, share = 0.5 }, in_lua.element { 4, 1,
      count = 2, share = 0.9 } })
    assert.is_function(in_lua.define)
  end)

  it("writes cells as the wire has them", function()
    for _, case in ipairs {
      { "DOUBLE", 0.5, "0.5" }, { "DOUBLE", 12, "12.0" }, { "DOUBLE", 1e20, "1.0E20" }, { "DOUBLE",
        -math.huge, "-Infinity" },
      { "BIGINT", 7, "7" }, { "BOOLEAN", 1, "true" }, { "TIMESTAMP", "2026-01-01 10:00:00.500",
      "2026-01-01T10:00:00.500Z" },
      { "STRING", "x", "x" }, { "STRING", nil, json.null },
    } do
      assert.equal(case[3], (types.cell(case[1], case[2])))
    end
    assert.equal("MAP<STRING,STRING>", types.text "MAP")
    assert.equal("STRING", types.named "VARCHAR")
    assert.is_true(types.is_number "INT")
    assert.has_error(function() types.named "GEOMETRY" end)
    assert.has_error(function() types.mismatch(1, "x") end)
    local text = { sql = "x", type = "STRING" }
    assert.equal("INT", types.cast({ sql = "NULL", type = "VOID" }, "INT").type)
    assert.equal("DOUBLE", types.number(text, 1, "f").type)
    assert.has_error(function() types.condition(text, 1, "f") end)
    assert.equal("BIGINT", select(2, types.unify({ text, { sql = "1", type = "INT" } }, 1, "f")))
    assert.matches("json_valid", functions.json_part("x", "y"))
    assert.equal("DATE", select(2, functions.shifted({ sql = "x", type = "DATE" }, 1, "DAYS", 1)))
    assert.is_true(functions.known.count.is_aggregate)
  end)
end)

-- ---- statements ----

local function start(options)
  options = options or {}
  options.deploy_time = 0
  local call, emulated = caller.start(options)
  local function execute(statement, more)
    local body = { statement = statement, warehouse_id = "any", wait_timeout = "50s" }
    for name, value in pairs(more or {}) do body[name] = value end
    local res = call("POST", PATH, body)
    assert.equal(200, res.status, res.body)
    return res:json()
  end
  return execute, call, emulated
end

-- The first row; or the message of the error.
local function first(execute, statement, more)
  local answer = execute(statement, more)
  if answer.status.state == "FAILED" then return answer.status.error.message end
  assert.equal("SUCCEEDED", answer.status.state)
  local row = answer.result.data_array[1] or {}
  for index = 1, #row do if row[index] == json.null then row[index] = "NULL" end end
  return table.concat(row, "|")
end

describe_with_sqlite("the emulator's SQL", function()
  it("works values out as the warehouse does", function()
    task.simulate(function()
      local execute = start()
      for statement, wanted in pairs {
        ["SELECT 1 / 2, 7 DIV 2, -7 % 4, 1 + 2 * 3, (1 + 2) * 3, 10 - 3 - 2"] = "0.5|3|-3|7|9|5",
        ["SELECT 'a' || 1 || true, concat('x', 1.5), 2 > 1, NOT 2 > 1, NULL"] = "a1true|x1.5|true|false|NULL",
        ["SELECT '10' > 9, '1.5' + 1, 1 = '1', DATE '2026-01-31' > '2026-01-30'"] = "true|2.5|true|true",
        ["SELECT 1 IS NULL, NULL IS NULL, NULL <=> NULL, 1 <=> NULL, (1 > 2) IS NOT \z
          TRUE"] = "false|true|true|false|true",
        ["SELECT 2 IN (1, 2), 2 NOT IN (1, 2), 2 BETWEEN 1 AND 3, 'abc' LIKE 'a%', 'Abc' LIKE 'a%', \z
          'a%c' LIKE 'a\\%c'"] =
          "true|false|true|true|false|true",
        ["SELECT CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END, CASE WHEN 1 > 2 THEN 1 ELSE 2.5 END, \z
          if(true, 1, 2)"] = "b|2.5|1",
        ["SELECT CAST('12' AS INT), '7'::bigint, CAST(1.9 AS INT), CAST(1 AS STRING), try_cast('x' AS \z
          INT), CAST('t' AS BOOLEAN)"] =
          "12|7|1|1|NULL|true",
        ["SELECT coalesce(NULL, 2), nullif(1, 1), nvl(NULL, 'x'), round(2.567, 2), floor(1.7), \z
          ceil(1.2), abs(-3)"] =
          "2|NULL|x|2.57|1|2|3",
        ["SELECT upper('aé'), length('aé'), substring('abcd', 2, 2), trim('  x '), replace('aba', 'a', \z
          'c'), contains('abc', 'b')"] =
          "Aé|2|bc|x|cbc|true",
      } do
        assert.equal(wanted, first(execute, statement), statement)
      end
      local part = [[SELECT get_json_object('{"a":{"b c":[1,true,{"x":"y"}],"n":1.5}}', "$%s") AS v]]
      assert.equal("1", first(execute, part:format ".a['b c'][0]"))
      assert.equal("true", first(execute, part:format ".a['b c'][1]"))
      assert.equal('{"x":"y"}', first(execute, part:format ".a['b c'][2]"))
      assert.equal("1.5", first(execute, part:format ".a.n"))
      assert.equal("NULL", first(execute, part:format ".a.missing.deeper"))
      assert.equal("NULL", first(execute, [[SELECT get_json_object('{"a":', '$.a')]]))
    end)
  end)

  it("knows time, on the running clock", function()
    task.simulate(function()
      local execute = start()
      task.sleep(90)
      for statement, wanted in pairs {
        ["SELECT current_date(), current_timestamp(), unix_timestamp()"] =
          "2026-01-01|2026-01-01T00:01:30.000Z|1767225690",
        ["SELECT unix_timestamp(current_date() - INTERVAL 7 DAY) * 1000"] = "1766620800000",
        ["SELECT current_date - INTERVAL 1 WEEK, DATE '2026-01-31' + INTERVAL 1 MONTH, now() - INTERVAL \z
          '2' HOURS"] =
          "2025-12-25|2026-02-28|2025-12-31T22:01:30.000Z",
        ["SELECT date_trunc('HOUR', TIMESTAMP '2026-01-01T10:20:30.5Z'), to_date('2026-01-01 10:00'), \z
          hour('2026-01-01 10:00')"] =
          "2026-01-01T10:00:00.000Z|2026-01-01|10",
        ["SELECT timestamp_millis(1500), from_unixtime(60), unix_millis(timestamp_millis(1234567)), \z
          datediff('2026-01-31', '2026-01-01')"] =
          "1970-01-01T00:00:01.500Z|1970-01-01 00:01:00|1234567|30",
        ["SELECT date_add('2026-01-31', 1), date_sub('2026-01-01', 1), CAST(TIMESTAMP '2026-01-01 \z
          10:10:00' AS STRING)"] =
          "2026-02-01|2025-12-31|2026-01-01 10:10:00",
      } do
        assert.equal(wanted, first(execute, statement), statement)
      end
    end)
  end)

  it("fails where the warehouse fails, with its words", function()
    task.simulate(function()
      local execute = start()
      for statement, part in pairs {
        ["SELECT 1 / 0"] = "[DIVIDE_BY_ZERO]", ["SELECT 1 % 0"] = "[DIVIDE_BY_ZERO]",
        ["SELECT CAST('x' AS INT)"] = "[CAST_INVALID_INPUT] The value 'x'",
        ["SELECT a"] = "[UNRESOLVED_COLUMN",
        ["SELECT nothing(1)"] = "[UNRESOLVED_ROUTINE] The function `nothing`",
        ["SELECT sum('a' = 'b')"] = "[DATATYPE_MISMATCH]",
        ["SELECT 1 + true"] = "[DATATYPE_MISMATCH]", ["SELECT sum(count(*))"] = "[NESTED_AGGREGATE_FUNCTION]",
        ["SELECT 1 WHERE count(*) > 1"] = "count in WHERE",
        ["SELECT round()"] = "[WRONG_NUM_ARGS] round needs 1 to 2",
        ["SELECT percentile(1, 2)"] = "[INVALID_PARAMETER_VALUE]", ["SELECT :x"] = "[UNBOUND_SQL_PARAMETER]",
        ["SELECT * FROM a.b.c"] = "[TABLE_OR_VIEW_NOT_FOUND] The table or view `a`.`b`.`c`",
        ["SELECT *"] = "* needs a FROM",
        ["SELECT get_json_object('{}', '$..a')"] = [[The JSON path "$..a"]],
        ["SELECT 1 LIMIT -1"] = "[INVALID_PARAMETER_VALUE]",
        ["SELECT CAST(1 AS BINARY)"] = "The type BINARY",
        ["SELECT INTERVAL 1 DAY"] = "An interval anywhere but",
        ["SELECT 1 GROUP BY 2"] = "[GROUP_BY_POS_OUT_OF_RANGE]",
        ["SELECT sqlite_version()"] = "[UNRESOLVED_ROUTINE]",
        ["SELECT load_extension('x')"] = "[UNRESOLVED_ROUTINE]",
        ["SELECT * FROM log"] = "[TABLE_OR_VIEW_NOT_FOUND]",
        ["SELECT * FROM sqlite_master"] = "[TABLE_OR_VIEW_NOT_FOUND]",
        ["SELECT sluice_cast('1', 'INT', 0)"] = "[UNRESOLVED_ROUTINE]",
      } do
        assert.is_truthy(first(execute, statement):find(part, 1, true), statement .. ": " .. first(execute,
          statement))
      end
      local answer = execute "SELECT a FROM (SELECT 1 AS b) t"
      assert.same({ "FAILED", "42703" }, { answer.status.state, answer.status.sql_state })
      assert.matches("Did you mean `b`%?", answer.status.error.message)
    end)
  end)

  it("gives hostile statements to SQLite as values, and bounds them", function()
    task.simulate(function()
      local execute = start()
      assert.equal("x' OR 1=1 --", first(execute, [[SELECT 'x\' OR 1=1 --']]))
      local words = '"); DROP TABLE log; --'
      assert.equal(words, first(execute, ("SELECT a FROM (SELECT '%s' AS a) AS `\"); x`"):format(words)))
      assert.equal("1", first(execute, [[SELECT `"); DROP` FROM (SELECT 1 AS `"); DROP`)]]))
      local nested = "'{}'"
      for _ = 1, 30 do nested = ("get_json_object(%s, '$.a')"):format(nested) end
      assert.matches("UNSUPPORTED_FEATURE.*so long", first(execute, "SELECT " .. nested))
      assert.matches("^%[UNSUPPORTED_FEATURE%]", first(execute,
        "SELECT " .. ("abs("):rep(150) .. "1" .. (")"):rep(150)))
      assert.equal("true", first(execute, "SELECT true" .. (" OR false"):rep(150)))
      local many = {}
      for index = 1, 31000 do many[index] = "'" .. index .. "'" end
      assert.matches("so many texts", first(execute, "SELECT 'x' IN (" .. table.concat(many, ",") .. ")"))
    end)
  end)

  it("ends in rows or in a failure that is told, whatever it is given", function()
    task.simulate(function()
      local execute, call = start()
      caller.create(call, "e", { caller.entity "echo" }, {
        ai_gateway = { inference_table_config = {
          enabled = true, catalog_name = "c", schema_name = "s", table_name_prefix = "g",
        } },
      })
      assert.equal(200, call("POST", "/serving-endpoints/e/invocations", caller.chat "hello").status)
      local known, random_of = {
        [[WITH a AS (SELECT *, status_code + 1 AS n FROM c.s.g_request_response)
          SELECT request_metadata.model_name AS m, percentile(n, 0.9),
          sum(CASE WHEN n > 0 THEN 1 ELSE 0 END) / count(*) FROM a x
          WHERE x.date <= current_date() AND response LIKE '%hello%'
          GROUP BY 1 HAVING count(*) > 0 ORDER BY 2 DESC NULLS LAST, 1 LIMIT 5 OFFSET 0]],
        [[SELECT request_time - INTERVAL 1 DAY, logging_error_codes[0], 7 DIV 2, -3 % 2, -2,
          coalesce(requester, 'x'),
          stddev(status_code) FILTER (WHERE NOT status_code IN (1, 2)), median(execution_duration_ms),
          count(DISTINCT get_json_object(response, '$.model')) FROM `c`.s.g_payload GROUP BY ALL]],
        [[SELECT ai_query('e', upper(col), failOnError => false) AS a, pos::string FROM
          posexplode(from_json('["x"]', 'ARRAY<STRING>')) AS t(pos, col)]],
      }, require("sluice.random").new(11)
      local words, made, ends = {}, {}, { SUCCEEDED = 0, FAILED = 0 }
      for index, statement in ipairs(known) do
        made[index] = tokens.read(statement)
        for _, token in ipairs(made[index]) do words[#words + 1] = token.text end
      end
      local function below(most) return math.floor(random_of() * most) + 1 end
      for _ = 1, 300 do
        local list = {}
        for index, token in ipairs(made[below(#made)]) do list[index] = token.text end
        list[#list] = nil
        for _ = 1, below(2) do
          local place = below(#list)
          local act = below(3)
          if act == 1 then table.remove(list, place) end
          if act == 2 then table.insert(list, place, words[below(#words)]) end
          if act == 3 then list[place] = words[below(#words)] end
        end
        local statement = table.concat(list, " "):gsub("end of input", "")
        local status = execute(statement).status
        ends[status.state] = ends[status.state] + 1
        assert.is_not.equal("INTERNAL_ERROR", status.error and status.error.error_code, statement)
      end
      assert.is_true(ends.SUCCEEDED > 0 and ends.FAILED > 100)
      assert.matches("DISTINCT values", first(execute, "SELECT median(DISTINCT 1)"))
      assert.equal("1", first(execute, "SELECT count(*) FROM c.s.g_payload GROUP BY round(200, 1)"))
    end)
  end)

  it("groups, orders, limits and names", function()
    task.simulate(function()
      local execute = start()
      local from = [[ FROM posexplode(from_json(:rows, 'ARRAY<STRING>')) AS t(place, word)]]
      local rows = { parameters = { { name = "rows", value = '["a","b","a","c","a",null]' } } }
      local function all(statement)
        local answer, list = execute(statement:gsub("FROM T", function() return from end), rows), {}
        assert.equal("SUCCEEDED", answer.status.state, json.encode(answer.status))
        for index, row in ipairs(answer.result.data_array) do
          for place = 1, #row do if row[place] == json.null then row[place] = "-" end end
          list[index] = table.concat(row, "")
        end
        return table.concat(list, " "), answer.manifest
      end
      assert.equal("a3 b1 c1",
        (all "SELECT word, count(*) AS n FROM T WHERE word IS NOT NULL GROUP BY word ORDER BY n DESC, 1"))
      assert.equal("a3", (all "SELECT word w, count(word) n FROM T GROUP BY w HAVING n > 1"))
      assert.equal("-0", (all "SELECT word, count(word) FROM T GROUP BY ALL ORDER BY word LIMIT 1"))
      assert.equal("c b", (all "SELECT DISTINCT word FROM T ORDER BY word DESC NULLS LAST LIMIT 2"))
      assert.equal("1 2", (all "SELECT place FROM T ORDER BY t.place LIMIT 2 OFFSET 1"))
      assert.equal("34.5", (all "SELECT count(DISTINCT word), percentile(place, 0.9) FROM T"))
      assert.equal("2.52.5", (all "SELECT avg(place), median(place) FROM T"))
      assert.equal("31", (all "SELECT count_if(word = 'a'), count(*) FILTER (WHERE word = 'b') FROM T"))
      assert.equal("2", (all "SELECT percentile_approx(place, 0.5) FROM T"))
      assert.equal("1.87082869338697073.5", (all "SELECT stddev(place), var_samp(place) FROM T"))
      assert.equal("-", (all "SELECT percentile(place, 0.5) FROM T WHERE place > 100"))
      assert.equal("b",
        (all "WITH u AS (SELECT word, place FROM T), v AS (SELECT * FROM u WHERE place = 1) SELECT word \z
          FROM v"))
      local _, manifest = all "SELECT word, word, count(*), place / 2 AS half FROM T GROUP BY word, place"
      local shown = {}
      for index, column in ipairs(manifest.schema.columns) do
        shown[index] = column.name .. " " .. column.type_name
      end
      assert.same({ "word STRING", "word_2 STRING", "count(1) BIGINT", "half DOUBLE" }, shown)
      assert.matches("MISSING_AGGREGATION", first(execute, "SELECT word, count(*)" .. from, rows))
      assert.matches("MISSING_AGGREGATION", first(execute, "SELECT count(*)" .. from .. " ORDER BY place",
        rows))
    end)
  end)

  it("takes parameters of every type", function()
    task.simulate(function()
      local execute = start()
      local parameters = {
        { name = "s", value = "x'y" }, { name = "i", type = "INT", value = "7" }, { name = "d",
          type = "DOUBLE", value = "1.5" },
        { name = "b", type = "BOOLEAN", value = "true" }, { name = "t", type = "DATE",
        value = "2026-01-31" }, { name = "n", type = "INT" },
      }
      local more = { parameters = parameters }
      assert.equal("x'y|8|0.75|false|2026-02-01|NULL",
        first(execute, "SELECT :s, :i + 1, :d / 2, NOT :b, :t + INTERVAL 1 DAY, :n LIMIT :i", more))
      parameters[2].value = "seven"
      assert.matches("CAST_INVALID_INPUT", first(execute, "SELECT :i", more))
      parameters[2].type = "POINT"
      assert.matches("The type POINT", first(execute, "SELECT :s", more))
    end)
  end)
end)

describe_with_sqlite("a statement of the emulator", function()
  local NUMBERS <const> = "SELECT pos FROM posexplode(from_json(:rows, 'ARRAY<STRING>'))"

  local function numbers(count)
    local list = json.array {}
    for index = 1, count do list[index] = "x" end
    return { parameters = { { name = "rows", value = json.encode(list) } } }
  end

  it("is pending, runs, and has its rows in chunks", function()
    task.simulate(function()
      local execute, call = start { statement_time = 10, chunk_rows = 2 }
      local more = numbers(5)
      more.wait_timeout = "0s"
      local answer = execute(NUMBERS, more)
      assert.equal("PENDING", answer.status.state)
      local path = PATH .. "/" .. answer.statement_id
      task.sleep(1)
      assert.equal("RUNNING", call("GET", path):json().status.state)
      assert.equal(400, call("GET", path .. "/result/chunks/0").status)
      task.sleep(10)
      answer = call("GET", path):json()
      assert.equal("SUCCEEDED", answer.status.state)
      assert.same({ 3, 5, false }, {
        answer.manifest.total_chunk_count, answer.manifest.total_row_count, answer.manifest.truncated,
      })
      assert.same({ { "0" }, { "1" } }, answer.result.data_array)
      assert.equal(1, answer.result.next_chunk_index)
      local chunk = call("GET", answer.result.next_chunk_internal_link):json()
      assert.same({ { "2" }, { "3" } }, chunk.data_array)
      chunk = call("GET", path .. "/result/chunks/2"):json()
      assert.same({ { "4" } }, chunk.data_array)
      assert.is_nil(chunk.next_chunk_index)
      caller.refused(call("GET", path .. "/result/chunks/3"), 400, "INVALID_PARAMETER_VALUE")
      caller.refused(call("GET", path .. "/result/chunks/x"), 400, "INVALID_PARAMETER_VALUE")
      task.sleep(3601)
      execute "SELECT 1"
      caller.refused(call("GET", path), 404, "RESOURCE_DOES_NOT_EXIST")
    end)
  end)

  it("is cancelled by a call, or when its wait is over", function()
    task.simulate(function()
      local execute, call = start { statement_time = 100 }
      local answer = execute("SELECT 1", { wait_timeout = "5s" })
      assert.equal("RUNNING", answer.status.state)
      local path = PATH .. "/" .. answer.statement_id
      assert.same({}, call("POST", path .. "/cancel"):json())
      assert.equal("CANCELED", call("GET", path):json().status.state)
      task.sleep(200)
      assert.equal("CANCELED", call("GET", path):json().status.state)
      answer = execute("SELECT 1", { wait_timeout = "5s", on_wait_timeout = "CANCEL" })
      assert.equal("CANCELED", answer.status.state)
      caller.refused(call("POST", PATH .. "/none/cancel"), 404, "RESOURCE_DOES_NOT_EXIST")
    end)
  end)

  it("gives links that need no token and end", function()
    task.simulate(function()
      local execute, call = start { chunk_rows = 2 }
      local more = numbers(3)
      more.disposition = "EXTERNAL_LINKS"
      local link = execute(NUMBERS, more).result.external_links[1]
      assert.equal(1, link.next_chunk_index)
      local path = link.external_link:match "^http://emulator.test(/.*)$"
      assert.same({ { "0" }, { "1" } }, call("GET", path, nil, {}):json())
      assert.equal(400, call("GET", path).status)
      assert.equal(403, call("GET", path:gsub("key=.", "key=x"), nil, {}).status)
      task.sleep(901)
      assert.equal(403, call("GET", path, nil, {}).status)
    end)
  end)

  it("is cut where its limits say", function()
    task.simulate(function()
      local execute, call = start()
      local more = numbers(5)
      more.row_limit = 2
      local answer = execute(NUMBERS, more)
      assert.same({ 2, true }, { answer.manifest.total_row_count, answer.manifest.truncated })
      more.row_limit, more.byte_limit = nil, 3
      answer = execute(NUMBERS, more)
      assert.same({ 4, true }, { answer.manifest.total_row_count, answer.manifest.truncated })
      local big = { parameters = { { name = "x", value = ("x"):rep(9 << 20) } } }
      assert.matches("Inline byte limit exceeded", first(execute, "SELECT :x, :x, :x", big))
      for _ = 1, 1001 do execute "SELECT 1" end
      assert.equal(404, call("GET", PATH .. "/" .. answer.statement_id).status)
    end)
  end)

  it("is refused where the request is wrong", function()
    local _, call = start()
    local function refuse(change, part)
      local body = { statement = "SELECT 1", warehouse_id = "w" }
      for name, value in pairs(change) do body[name] = value end
      caller.refused(call("POST", PATH, body), 400, "INVALID_PARAMETER_VALUE", part)
    end
    refuse({ statement = "" }, "statement is required")
    refuse({ warehouse_id = json.null }, "warehouse_id is required")
    refuse({ wait_timeout = "3s" }, "wait_timeout")
    refuse({ wait_timeout = "51s" }, "wait_timeout")
    refuse({ on_wait_timeout = "STOP" }, "on_wait_timeout")
    refuse({ format = "ARROW_STREAM" }, "format ARROW_STREAM")
    refuse({ parameters = { { value = "x" } } }, "needs a name")
    refuse({ parameters = { { name = "x", value = 7 } } }, "must be a string")
    refuse({ row_limit = 0 }, "row_limit")
    refuse({ catalog = 7 }, "catalog")
    caller.refused(call("POST", PATH, "[]"), 400, "MALFORMED_REQUEST")
    assert.equal(401, call("POST", PATH, {}, {}).status)
    assert.equal(404, call("GET", PATH .. "/none").status)
  end)
end)
