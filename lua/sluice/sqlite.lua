-- SPDX-License-Identifier: MIT
-- SQLite: a database in a file or in memory, whose long queries hold up nobody.

local core = require "sluice.core.sqlite"
local errors = require "sluice.errors"
local json = require "sluice.json"
local options = require "sluice.options"
local task = require "sluice.task"
local turns = require "sluice.core.task"

local sqlite = {}

---@class sluice.sqlite.Options
---@field read_only? boolean false; a file that is not there is an error then
---@field busy_timeout? number seconds to wait while another program has the database, 5
---@field max_statements? integer compiled statements that are kept for the next call, 64
local OPTIONS <const> = { read_only = "boolean?", busy_timeout = "seconds?", max_statements = "count?" }

local FUNCTION <const> = { deterministic = "boolean?" }
local AGGREGATE <const> = { start = "callable?", step = "callable", finish = "callable" }

local BUSY_TIMEOUT <const>, MAX_STATEMENTS <const> = 5, 64

-- Seconds between two looks at a database that another program has: the first, and the longest.
local FIRST_PAUSE <const>, LAST_PAUSE <const> = 0.001, 0.05

-- Rows that are fetched at once: no more than a millisecond takes anyway.
local ROWS_AT_ONCE <const> = 1000

---A database. Its calls wait only where a query takes longer than a millisecond (then it goes on in a thread,
---and the other tasks run), where another program has the database, or another task a transaction.
---@class sluice.sqlite.Database
local methods = {}
local metatable = {
  __name = "sluice.sqlite.database",
  __index = options.strict("a database", methods, { "path" }),
}

function metatable.__close(self) self:close() end

function metatable.__tostring(self)
  return ("sluice.sqlite.database: %s%s"):format(self.path, self._shared.closed and " (closed)" or "")
end

---NULL among bound values and in arrays of cells; the same as json.null.
---@type userdata
sqlite.null = json.null

---Bytes that are bound as a blob and not as text.
---@param bytes string
---@return table blob
function sqlite.blob(bytes)
  options.argument("sqlite.blob", "bytes", bytes, "string")
  return core.blob(bytes)
end

-- ---- errors ----

local KINDS <const> = { SQLITE_BUSY = "DatabaseBusy", SQLITE_LOCKED = "DatabaseBusy" }

local function kind_of(code)
  if code:find "^SQLITE_CONSTRAINT" then return "ConstraintFailed" end
  return KINDS[code] or KINDS[code:match "^SQLITE_%u+"] or "DatabaseError"
end

local function failure(self, operation, code, text)
  return errors.new(kind_of(code), {
    operation = operation, object = self.path, code = code, message = text,
  })
end

-- ---- turns ----

local function check_open(self, where)
  if getmetatable(self) ~= metatable then options.method(where, self, "_shared") end
  if self._shared.closed then options.misuse("%s: the database is closed", where) end
  if self._is_over then options.misuse("%s: the transaction is over", where) end
end

-- Until nobody else has a transaction, and no other task's query is in the thread.
local function enter(self, where)
  check_open(self, where)
  local shared = self._shared
  while shared.transaction and shared.transaction ~= self and not self._is_transaction do
    if shared.owner == shared.handle:task() then
      options.misuse("%s: inside db:transaction use the database that its function gets", where)
    end
    shared.turn:wait()
    check_open(self, where)
  end
  shared.handle:wait()
  return shared.handle
end

-- ---- other programs' locks ----

local function is_busy(code)
  return code == "SQLITE_BUSY" or code == "SQLITE_LOCKED"
end

-- Waits a while, if there is time left; `state` is of one call.
local function wait_while_busy(self, state)
  local now = task.now()
  state.give_up = state.give_up or now + self._shared.busy_timeout
  if now >= state.give_up then return false end
  state.pause = math.min(2 * (state.pause or FIRST_PAUSE / 2), LAST_PAUSE)
  task.sleep(math.min(state.pause, state.give_up - now))
  self._shared.handle:wait()
  return true
end

-- ---- statements ----

-- A compiled statement for the text, and where the next one begins. To compile is to read the schema.
local function prepare(self, operation, sql, from)
  local shared = self._shared
  local kept = from == 1 and shared.statements[sql]
  if kept then
    shared.statements[sql] = nil
    shared.count = shared.count - 1
    return kept, #sql + 1
  end
  local state
  while true do
    local statement, following, text = shared.handle:prepare(sql, from)
    if statement ~= nil then return statement, following end
    state = state or {}
    if not is_busy(following) or not wait_while_busy(self, state) then
      return nil, failure(self, operation, following, text)
    end
  end
end

-- Keeps it for the next time, if it is all of the text.
local function put_back(self, sql, statement)
  local shared = self._shared
  if shared.closed then return end
  statement:reset()
  if shared.statements[sql] then return statement:close() end
  if shared.count >= shared.max_statements then
    local some = next(shared.statements)
    shared.statements[some]:close()
    shared.statements[some] = nil
    shared.count = shared.count - 1
  end
  shared.statements[sql] = statement
  shared.count = shared.count + 1
end

local function named_values(where, statement, values)
  local names, list = statement:parameters(), {}
  local known = {}
  for place, name in ipairs(names) do
    local word = name and name:sub(2)
    if not word or word:find "^%d" then
      options.misuse("%s: the statement has values without a name", where)
    end
    known[word] = true
    if values[word] == nil then options.misuse('%s: the value "%s" is missing', where, word) end
    list[place] = values[word]
  end
  for name in pairs(values) do
    if not known[name] then
      local wrong = tostring(name)
      options.misuse('%s: the statement has no value "%s"%s', where, wrong, options.hint(wrong, known))
    end
  end
  return list, #names
end

local function is_named(value)
  return type(value) == "table" and getmetatable(value) == nil
end

local function bind(self, where, statement, ...)
  local first = ...
  local good, code, text
  if is_named(first) and select("#", ...) == 1 then
    local list, count = named_values(where, statement, first)
    good, code, text = statement:bind(table.unpack(list, 1, count))
  else
    good, code, text = statement:bind(...)
  end
  if good then return true end
  if good == nil then return nil, failure(self, where, code, text) end
  if text then options.misuse("%s: the statement takes %d value(s), got %d", where, code, text) end
  options.misuse("%s: value %d must be nil, a boolean, number, string or sqlite.blob", where, code)
end

-- ---- running ----

-- The next rows, and whether they are the last. Another program's lock is waited for before the first one.
local function fetch(self, where, statement, as_arrays, is_first)
  local state
  while true do
    local rows, more, text = statement:fetch(as_arrays, ROWS_AT_ONCE)
    if rows then return rows, more end
    statement:reset()
    if more == "SQLITE_INTERRUPT" then task.sleep(FIRST_PAUSE) end -- the loop hears of a signal: this raises
    state = state or {}
    if not is_first or not is_busy(more) or not wait_while_busy(self, state) then
      return nil, failure(self, where, more, text)
    end
  end
end

-- Closed on every way out, put back on a good one.
local holder_metatable = {
  __close = function(holder)
    if holder.statement then holder.statement:close() end
  end,
}

local function hold(statement)
  return setmetatable({ statement = statement }, holder_metatable)
end

-- All rows of a statement that is bound; what they are added to.
local function run(self, where, statement, as_arrays, all)
  local is_first = true
  while true do
    local rows, done = fetch(self, where, statement, as_arrays, is_first)
    if not rows then return nil, done end
    if all and done and is_first then return rows end
    if all then table.move(rows, 1, #rows, #all + 1, all) end
    if done then return all or rows end
    is_first = false
    task.sleep(0)
    self._shared.handle:wait()
  end
end

-- Compiles, binds and runs one statement. `following` beyond the end of the text: it is all of it.
local function run_one(self, where, sql, from, as_arrays, all, ...)
  local statement, following = prepare(self, where, sql, from)
  if statement == nil then return nil, following end
  if not statement then return all or {}, following end
  local holder <close> = hold(statement)
  local good, err = bind(self, where, statement, ...)
  if not good then return nil, err end
  local rows
  rows, err = run(self, where, statement, as_arrays, all)
  if not rows then return nil, err end
  if from == 1 and following > #sql then
    holder.statement = nil
    put_back(self, sql, statement)
  end
  return rows, following
end

local function check_single(where, sql, following)
  if sql:find("[^%s;]", following) and not sql:find("^%s*%-%-", following) then
    options.misuse("%s: one statement at a time, found more at byte %d", where, following)
  end
end

---Runs statements that are not asked for rows: one with values, or several without. Of several, those before
---one that fails have been done: put them into a transaction.
---@param sql string
---@param ... any values of `?`: nil or sqlite.null, boolean (0 and 1), number, string, sqlite.blob; or one table by the names of `:name`
---@return integer? changes rows that were changed
---@return sluice.Error? err
function methods:exec(sql, ...)
  options.argument("db:exec", "sql", sql, "string")
  local handle = enter(self, "db:exec")
  local before, from = handle:changes(), 1
  repeat
    local rows, following = run_one(self, "db:exec", sql, from, true, nil, ...)
    if not rows then return nil, following end
    if select("#", ...) > 0 then check_single("db:exec", sql, following) end
    from = following
    handle:wait()
  until from > #sql
  return handle:changes() - before
end

---The rows of a query, each a table by the names of its columns; NULL is no field. Columns of the same name
---need another one (AS).
---@param sql string one statement
---@param ... any see db:exec
---@return table[]? rows
---@return sluice.Error? err
function methods:query(sql, ...)
  options.argument("db:query", "sql", sql, "string")
  enter(self, "db:query")
  local rows, following = run_one(self, "db:query", sql, 1, false, {}, ...)
  if not rows then return nil, following end
  check_single("db:query", sql, following)
  return rows
end

---The first row of a query; nil where there is none, or nil and err.
---@param sql string one statement
---@param ... any see db:exec
---@return table? row
---@return sluice.Error? err
function methods:first(sql, ...)
  options.argument("db:first", "sql", sql, "string")
  enter(self, "db:first")
  local rows, following = run_one(self, "db:first", sql, 1, false, {}, ...)
  if not rows then return nil, following end
  return rows[1]
end

local function iterate(self, where, as_arrays, sql, ...)
  options.argument(where, "sql", sql, "string")
  enter(self, where)
  local statement, following = prepare(self, where, sql, 1)
  if statement == nil then error(following, 0) end
  if not statement then options.misuse("%s: there is no statement", where) end
  check_single(where, sql, following)
  local holder = hold(statement)
  local good, err = bind(self, where, statement, ...)
  if not good then error(err, 0) end
  local rows, done, at, is_first = {}, false, 0, true
  local function step()
    at = at + 1
    while at > #rows do
      if done then return nil end
      enter(self, where)
      rows, done = fetch(self, where, statement, as_arrays, is_first)
      if not rows then
        rows, err, done = {}, done, true
        error(err, 0)
      end
      at, is_first = 1, false
      if done then
        holder.statement = nil
        put_back(self, sql, statement)
      else
        task.sleep(0)
      end
    end
    return rows[at]
  end
  return step, nil, nil, holder
end

---Iterates over the rows of a query, which need not fit into memory. Raises err. A loop that is left early
---lets go of the query.
---@param sql string one statement
---@param ... any see db:exec
---@return fun(): table?
function methods:rows(sql, ...)
  return iterate(self, "db:rows", false, sql, ...)
end

---As rows, each an array of its cells in the columns' order; NULL is sqlite.null.
---@param sql string one statement
---@param ... any see db:exec
---@return fun(): table?
function methods:cells(sql, ...)
  return iterate(self, "db:cells", true, sql, ...)
end

---The columns that a query gives, without running it.
---@param sql string one statement
---@return { name: string, type: string? }[]? columns `type`: as the table declares it; nil for what is worked out
---@return sluice.Error? err
function methods:columns(sql)
  options.argument("db:columns", "sql", sql, "string")
  enter(self, "db:columns")
  local statement, following = prepare(self, "db:columns", sql, 1)
  if not statement then return statement == false and {} or nil, following end
  local names, types = statement:columns()
  local columns = {}
  for index, name in ipairs(names) do columns[index] = { name = name, type = types[index] or nil } end
  put_back(self, sql, statement)
  return columns
end

-- ---- transactions ----

local MODES <const> = { deferred = true, immediate = true, exclusive = true }

local function finish(self, inner, ok, ...)
  local shared = self._shared
  local function rollback()
    if not shared.closed and not shared.handle:is_autocommit() then methods.exec(inner, "ROLLBACK") end
  end
  if not ok then
    task.shield(rollback)
    error((...), 0)
  end
  local value, err = ...
  if value == nil and err ~= nil then
    task.shield(rollback)
    return ...
  end
  local done, problem = methods.exec(inner, "COMMIT")
  if not done then
    task.shield(rollback)
    return nil, problem
  end
  return ...
end

---Calls `f(db)` in a transaction: done as a whole when f returns, undone when it raises or returns nil and an
---error. Other tasks' calls wait for its end; in f, use the database that it gets. Waits.
---@param f fun(db: sluice.sqlite.Database): ...
---@param mode? "immediate"|"deferred"|"exclusive" when the database is locked for writing: at once (the default), at the first write, and for readers as well
---@return ... the results of f; nil and err where it could not begin or end
function methods:transaction(f, mode)
  options.argument("db:transaction", "f", f, "callable")
  mode = mode or "immediate"
  if not MODES[mode] then
    local hint = options.hint(tostring(mode), MODES)
    options.misuse('db:transaction: unknown mode "%s"%s', tostring(mode), hint)
  end
  local handle = enter(self, "db:transaction")
  if self._is_transaction then options.misuse "db:transaction: there is one already" end
  local shared = self._shared
  local inner = setmetatable({ path = self.path, _shared = shared, _is_transaction = true, _is_over = false },
    metatable)
  shared.transaction, shared.owner = inner, handle:task()
  local _ <close> = setmetatable({}, { __close = function()
    inner._is_over = true
    shared.transaction, shared.owner = nil, nil
    shared.turn:broadcast()
  end })
  local begun, err = methods.exec(inner, "BEGIN " .. mode)
  if not begun then return nil, err end
  return finish(self, inner, pcall(f, inner))
end

-- ---- functions ----

---Makes a Lua function callable in SQL. It gets SQL's values (NULL is nil), returns one, and cannot wait. A
---database with such functions makes all its steps on the thread of Lua.
---@param name string
---@param arguments integer how many it takes; -1: any number
---@param f fun(...: any): any
---@param given? { deterministic?: boolean } the same values always give the same result
function methods:create_function(name, arguments, f, given)
  options.argument("db:create_function", "name", name, "name")
  options.argument("db:create_function", "arguments", arguments, "integer")
  options.argument("db:create_function", "f", f, "function")
  given = options.check("db:create_function", given, FUNCTION)
  local handle = enter(self, "db:create_function")
  local good, _, text = handle:create_function(name, arguments, f, given.deterministic)
  if not good then options.misuse("db:create_function: %s", text) end
end

local function no_state() end

---Makes an aggregate of Lua functions callable in SQL: `start()` gives the state of a group, `step(state, ...)`
---is called for each row (what it returns is the new state, nil keeps it), `finish(state)` gives the result.
---@param name string
---@param arguments integer how many values a row gives; -1: any number
---@param parts { start?: fun(): any, step: fun(state: any, ...: any): any, finish: fun(state: any): any }
function methods:create_aggregate(name, arguments, parts)
  options.argument("db:create_aggregate", "name", name, "name")
  options.argument("db:create_aggregate", "arguments", arguments, "integer")
  options.argument("db:create_aggregate", "parts", parts, "table")
  options.check("db:create_aggregate", parts, AGGREGATE)
  local handle = enter(self, "db:create_aggregate")
  local start = parts.start or no_state
  local good, _, text = handle:create_aggregate(name, arguments, start, parts.step, parts.finish)
  if not good then options.misuse("db:create_aggregate: %s", text) end
end

-- ---- opening and closing ----

---Opens a database, made where it is missing.
---@param path string a file, or ":memory:"
---@param given? sluice.sqlite.Options
---@return sluice.sqlite.Database? db
---@return sluice.Error? err
function sqlite.open(path, given)
  options.argument("sqlite.open", "path", path, "name")
  given = options.check("sqlite.open", given, OPTIONS)
  local handle, code, text = core.open(path, given.read_only)
  if not handle then return nil, failure({ path = path }, "open database", code, text) end
  local self = setmetatable({
    path = path, _is_transaction = false, _is_over = false,
    _shared = {
      handle = handle, statements = {}, count = 0, turn = turns.condition "sqlite", closed = false,
      max_statements = given.max_statements or MAX_STATEMENTS,
      busy_timeout = given.busy_timeout or BUSY_TIMEOUT,
    },
  }, metatable)
  -- nothing is read before the first statement: what is no database is said here
  local good, err = self:first "SELECT 1 FROM sqlite_schema LIMIT 1"
  if not good and err then
    self:close()
    err.operation = "open database"
    return nil, err
  end
  return self
end

---Closes it; a query under way is given up. Idempotent, never waits.
function methods:close()
  local shared = self._shared
  if shared.closed or self._is_transaction then return end
  shared.closed = true
  shared.statements = {}
  shared.handle:close()
  shared.turn:broadcast()
end

return sqlite
