-- SPDX-License-Identifier: MIT
-- sluice.sqlite: statements, values, rows, errors, transactions, functions, and who waits for whom.

local sluice = require "sluice"
local support = require "support"

local describe_sqlite = support.needing("sqlite", describe, pending)
local sqlite = support.has "sqlite" and sluice.sqlite
local task = sluice.task

-- A query that ends after so many steps of SQLite's machine; without a number never.
local function counting(to)
  return ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c %s) SELECT count(*) AS n FROM c")
    :format(to and "WHERE x < " .. to or "")
end

local function with_path(f)
  support.with_file("", function(path)
    f(path)
    for _, suffix in ipairs { "-wal", "-shm", "-journal" } do os.remove(path .. suffix) end
  end)
end

describe_sqlite("sqlite", function()
  local db
  before_each(function() db = assert(sqlite.open ":memory:") end)
  after_each(function() db:close() end)

  describe("statements", function()
    it("gives rows by name, with the types of their cells", function()
      assert(db:exec "CREATE TABLE t(a INTEGER, b REAL, c TEXT, d BLOB); CREATE INDEX i ON t(a)")
      local insert = "INSERT INTO t VALUES (?, ?, ?, ?)"
      assert.equal(1, db:exec(insert, 1 << 62, 0.5, "a\0b", sqlite.blob "\255\0"))
      assert.equal(1, db:exec(insert, true, nil, sqlite.null, nil))
      assert.same({
        { a = 1 << 62, b = 0.5, c = "a\0b", d = "\255\0" },
        { a = 1 },
      }, db:query "SELECT * FROM t ORDER BY rowid")
      assert.same({ d = "blob", c = "text" },
        db:first "SELECT typeof(d) AS d, typeof(c) AS c FROM t")
      local columns = db:columns "SELECT a, a + 1 AS x FROM t"
      assert.same({ { name = "a", type = "INTEGER" }, { name = "x" } }, columns)
      assert.is_nil(db:first "SELECT 1 FROM t WHERE a = 99")
    end)

    it("takes values by name", function()
      assert.equal(5, db:first("SELECT :a + $b AS sum", { a = 2, b = 3 }).sum)
      local wrong = { nane = 1, name = 2 }
      assert.error_matches(function() db:query("SELECT :name", wrong) end, 'did you mean "name"')
      assert.error_matches(function() db:query("SELECT :name", {}) end, '"name" is missing')
      assert.error_matches(function() db:query("SELECT ?", { a = 1 }) end, "without a name")
    end)

    it("says at the caller what is wrong with values", function()
      local _, text = pcall(function() db:query "SELECT ?, ?" end)
      assert.matches("^spec/sqlite_spec.lua:%d+: db:query: .*takes 2 value%(s%), got 0", text)
      assert.error_matches(function() db:query("SELECT ?", print) end, "value 1 must be")
      assert.error_matches(function() db:query("SELECT ?", sluice.secret "s") end, "value 1 must be")
      assert.error_matches(function() db:query "SELECT 1; SELECT 2" end, "one statement at a time")
      assert.error_matches(function() db.query(1, "SELECT 1") end, "call it with a colon")
      assert.error_matches(function() return db.querry end, 'did you mean "query"')
    end)

    it("reads more rows than it holds, and lets go when a loop is left", function()
      assert(db:exec "CREATE TABLE t(a)")
      assert(db:exec((counting(5000):gsub("^(.*)SELECT count.*$", "INSERT INTO t %1SELECT x FROM c"))))
      local sum = 0
      for row in db:rows("SELECT a FROM t WHERE a > ? ORDER BY a", 10) do sum = sum + row.a end
      assert.equal(5000 * 5001 // 2 - 55, sum)
      for cells in db:cells "SELECT a, NULL FROM t ORDER BY a" do
        assert.same(sqlite.null, cells[2])
        if cells[1] == 2 then break end
      end
      assert(db:exec "DROP TABLE t") -- a query that held it would refuse that
      assert.has_error(function()
        for _ in db:rows "SELECT a FROM t" do error "unreachable" end
      end)
    end)

    it("keeps few compiled statements, and follows a table that changes", function()
      local small <close> = assert(sqlite.open(":memory:", { max_statements = 2 }))
      assert(small:exec "CREATE TABLE t(a)")
      assert(small:exec "INSERT INTO t VALUES (1)")
      for i = 1, 10 do assert.equal(i, small:first("SELECT " .. i .. " AS n").n) end
      assert.same({ a = 1 }, small:first "SELECT * FROM t")
      assert(small:exec "ALTER TABLE t ADD COLUMN b DEFAULT 'x'")
      assert.same({ a = 1, b = "x" }, small:first "SELECT * FROM t")
    end)
  end)

  describe("errors", function()
    it("have a kind and SQLite's code", function()
      local rows, err = db:query "SELEC 1"
      assert.is_nil(rows)
      assert.equal("DatabaseError", err.kind)
      assert.equal("SQLITE_ERROR", err.code)
      assert.matches('near "SELEC": syntax error', tostring(err))
      assert(db:exec "CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (1)")
      rows, err = db:exec "INSERT INTO t VALUES (1)"
      assert.is_nil(rows)
      assert.equal("ConstraintFailed", err.kind)
      assert.is_true(err:is "DatabaseError")
      assert.equal("SQLITE_CONSTRAINT_UNIQUE", err.code)
    end)

    it("tell what cannot be opened", function()
      local none, err = sqlite.open "/nonexistent/folder/x.db"
      assert.is_nil(none)
      assert.equal("SQLITE_CANTOPEN", err.code)
      support.with_file(("no database "):rep(100), function(path)
        none, err = sqlite.open(path)
        assert.is_nil(none)
        assert.equal("SQLITE_NOTADB", err.code)
      end)
      with_path(function(path)
        local writer <close> = assert(sqlite.open(path))
        assert(writer:exec "CREATE TABLE t(a)")
        local reader <close> = assert(sqlite.open(path, { read_only = true }))
        none, err = reader:exec "INSERT INTO t VALUES (1)"
        assert.is_nil(none)
        assert.equal("SQLITE_READONLY", err.code)
      end)
    end)

    it("do not reach settings of the whole process", function()
      local _, err = db:query "PRAGMA temp_store_directory = '/tmp'"
      assert.equal("SQLITE_AUTH", err.code)
    end)
  end)

  describe("waiting", function()
    it("lets the other tasks run during a long query, and those of the database after it", function()
      local ticks, order = 0, {}
      task.scope(function(scope)
        local ticker = scope:spawn(function()
          while true do
            ticks = ticks + 1
            task.sleep(0.001)
          end
        end)
        local long = scope:spawn(function()
          local row = db:first(counting(500000))
          order[#order + 1] = row.n
        end)
        local short = scope:spawn(function()
          local row = db:first "SELECT 1 AS n"
          order[#order + 1] = row.n
        end)
        long:join()
        short:join()
        ticker:cancel()
      end)
      assert.same({ 500000, 1 }, order)
      assert.is_true(ticks > 5)
    end)

    it("ends a query at a deadline, in a thread and on Lua's own", function()
      local result, err = task.timeout(0.02, function() return db:query(counting()) end)
      assert.is_nil(result)
      assert.equal("TimeoutError", err.kind)
      assert.equal(1, db:first "SELECT 1 AS n".n)
      db:create_function("same", 1, function(value) return value end)
      result, err = task.timeout(0.02, function() return db:query(counting()) end)
      assert.is_nil(result)
      assert.equal("TimeoutError", err.kind)
      assert.equal(1, db:first "SELECT same(1) AS n".n)
    end)

    it("ends a query that is cancelled, or whose database is closed", function()
      local query = task.group()
      local outcome
      local asking = query:spawn(function() outcome = table.pack(pcall(db.query, db, counting())) end)
      task.sleep(0.01)
      asking:cancel "enough"
      query:close()
      assert.is_false(outcome[1])
      assert.equal("TaskCancelled", outcome[2].kind)
      query = task.group()
      query:spawn(function() outcome = table.pack(db:query(counting())) end)
      task.sleep(0.01)
      db:close()
      query:close()
      assert.equal("SQLITE_MISUSE", outcome[2].code)
      assert.matches("closed", tostring(db))
      assert.error_matches(function() db:query "SELECT 1" end, "the database is closed")
    end)

    it("works in simulated time", function()
      task.simulate(function() assert.equal(200000, db:first(counting(200000)).n) end)
    end)

    it("waits for another program's lock without holding up the loop, and not for ever", function()
      with_path(function(path)
        local one <close> = assert(sqlite.open(path))
        local other <close> = assert(sqlite.open(path, { busy_timeout = 0.05 }))
        assert(one:exec "CREATE TABLE t(a)")
        one:transaction(function(tx)
          assert(tx:exec "INSERT INTO t VALUES (1)")
          local changes, err = other:exec "INSERT INTO t VALUES (2)"
          assert.is_nil(changes)
          assert.equal("DatabaseBusy", err.kind)
          assert.is_true(err.retryable)
        end)
        local patient <close> = assert(sqlite.open(path))
        task.scope(function(scope)
          scope:spawn(function()
            one:transaction(function(tx)
              assert(tx:exec "INSERT INTO t VALUES (3)")
              task.sleep(0.02)
            end)
          end)
          task.sleep(0.001)
          assert.equal(1, patient:exec "INSERT INTO t VALUES (4)")
        end)
        assert.equal(3, one:first "SELECT count(*) AS n FROM t".n)
      end)
    end)
  end)

  describe("transactions", function()
    before_each(function() assert(db:exec "CREATE TABLE t(a)") end)
    local function count() return db:first "SELECT count(*) AS n FROM t".n end

    it("are done or undone as a whole", function()
      assert.equal("result", db:transaction(function(tx)
        assert(tx:exec "INSERT INTO t VALUES (1)")
        return "result"
      end))
      assert.equal(1, count())
      local value, err = db:transaction(function(tx)
        assert(tx:exec "INSERT INTO t VALUES (2)")
        return nil, "a failure"
      end, "deferred")
      assert.is_nil(value)
      assert.equal("a failure", err)
      assert.equal(1, count())
      assert.has_error(function()
        db:transaction(function(tx)
          assert(tx:exec "INSERT INTO t VALUES (3)")
          error("raised", 0)
        end)
      end, "raised")
      assert.equal(1, count())
    end)

    it("keep the other tasks' calls out", function()
      task.scope(function(scope)
        scope:spawn(function()
          pcall(db.transaction, db, function(tx)
            assert(tx:exec "INSERT INTO t VALUES (1)")
            task.sleep(0.005)
            error "undone"
          end)
        end)
        scope:spawn(function() assert(db:exec "INSERT INTO t VALUES (2)") end)
      end)
      assert.same({ { a = 2 } }, db:query "SELECT a FROM t")
    end)

    it("say how they are to be used", function()
      local kept
      db:transaction(function(tx)
        kept = tx
        local text = "use the database that its function gets"
        assert.error_matches(function() db:exec "DELETE FROM t" end, text)
        assert.error_matches(function() tx:transaction(print) end, "there is one already")
      end)
      assert.error_matches(function() kept:exec "DELETE FROM t" end, "the transaction is over")
      assert.error_matches(function() db:transaction(print, "imediate") end, 'did you mean "immediate"')
    end)
  end)

  describe("functions in Lua", function()
    it("take and give values", function()
      db:create_function("kind", -1, function(...)
        local kinds = {}
        for index = 1, select("#", ...) do
          local value = select(index, ...)
          kinds[index] = math.type(value) or type(value)
        end
        return table.concat(kinds, " ")
      end, { deterministic = true })
      assert.equal("integer float string nil", db:first "SELECT kind(1, 1.5, 'x', NULL) AS k".k)
      db:create_function("twice", 1, function(value) return value * 2 end)
      assert.equal(5.0, db:first "SELECT twice(2.5) AS n".n)
    end)

    it("add up groups", function()
      db:create_aggregate("product", 1, {
        start = function() return 1 end,
        step = function(state, value) return state * value end,
        finish = function(state) return state end,
      })
      assert(db:exec "CREATE TABLE t(k, v); INSERT INTO t VALUES ('a', 2), ('b', 5), ('a', 3)")
      assert.same({ { k = "a", n = 6 }, { k = "b", n = 5 } },
        db:query "SELECT k, product(v) AS n FROM t GROUP BY k ORDER BY k")
      assert.equal(1, db:first "SELECT product(v) AS n FROM t WHERE k = 'c'".n)
    end)

    it("fail as SQL does, and cannot wait", function()
      db:create_function("bad", 0, function() error "broken on purpose" end)
      local _, err = db:query "SELECT bad()"
      assert.matches("broken on purpose", err.message)
      db:create_function("slow", 0, function() task.sleep(1) end)
      _, err = db:query "SELECT slow()"
      assert.is_true(sluice.errors.is(err))
      db:create_function("table_of", 0, function() return {} end)
      _, err = db:query "SELECT table_of()"
      assert.matches("returned a table", err.message)
    end)
  end)
end)
