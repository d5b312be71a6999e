-- SPDX-License-Identifier: MIT
-- The SQL of a workspace: statements for a warehouse, their results row by row.

local client = require "sluice.endpoints.client"
local errors = require "sluice.errors"
local options = require "sluice.options"
local parameters = require "sluice.sql.parameters"
local result = require "sluice.sql.result"
local retry = require "sluice.retry"
local statement = require "sluice.sql.statement"

local sql = {}

---The SQL Statement Execution API of a workspace.
---@class sluice.Sql
local methods = {}
local metatable = { __name = "sluice.sql", __index = options.strict("workspace.sql", methods) }

local PATH <const> = "/api/2.0/sql/statements"
local MANAGEMENT_TOTAL <const> = 60 -- seconds, of a call

-- Of a link to a chunk, which has some 20 MiB.
local DOWNLOAD <const> = { total = 600, idle = 60 }

-- As of the serving API: one that cannot succeed is told after about two seconds of waiting.
local TRIES <const>, TRIES_TOTAL <const> = 4, 300

local function surely_not_done(err)
  if not err.retryable then return false end
  return err:is "ConnectError" or err:is "TooManyRequests" or err:is "TemporarilyUnavailable"
end

---Makes the SQL client of a workspace.
---@param connection sluice.endpoints.Client
---@param given { timeout?: number|sluice.Timeout, warehouse_id?: string, transport?: table }
---@return sluice.Sql
function sql.new(connection, given)
  return setmetatable({
    _client = connection,
    _timeout = given.timeout or { total = MANAGEMENT_TOTAL },
    _warehouse = given.warehouse_id or false,
    _transport = given.transport or false,
    _safe = retry.policy { attempts = TRIES, total = TRIES_TOTAL, resend = true },
    _unsafe = retry.policy { attempts = TRIES, total = TRIES_TOTAL, retry_on = surely_not_done },
  }, metatable)
end

-- ---- the calls ----

local CALL <const> = { timeout = "table|number?", request_id = "string?" }

local function check_self(where, self) options.method(where, self, "_client") end

local function check_call(where, self, given)
  check_self(where, self)
  given = options.check(where, given, CALL)
  options.timeout(where, given.timeout)
  return given
end

local function call(self, policy, what, given)
  what.timeout = given.timeout or self._timeout
  what.request_id = given.request_id
  return policy:run(function() return self._client:call(what) end)
end

local NO_OPTIONS <const> = {}

local function submit(self, body, given)
  return call(self, self._unsafe, {
    method = "POST", path = PATH, body = body, operation = "execute SQL statement",
  }, given or NO_OPTIONS)
end

local function get(self, id, given)
  return call(self, self._safe, {
    method = "GET", path = PATH .. "/" .. client.escape(id), operation = "get SQL statement", object = id,
  }, given or NO_OPTIONS)
end

local function chunk(self, id, index, given)
  return call(self, self._safe, {
    method = "GET", path = ("%s/%s/result/chunks/%d"):format(PATH, client.escape(id), index),
    operation = "get chunk of SQL statement", object = id,
  }, given or NO_OPTIONS)
end

local function cancel(self, id, given)
  return call(self, self._safe, {
    method = "POST", path = ("%s/%s/cancel"):format(PATH, client.escape(id)),
      operation = "cancel SQL statement",
    object = id, may_be_empty = true,
  }, given or NO_OPTIONS)
end

local function check_id(where, self, id, given)
  given = check_call(where, self, given)
  options.argument(where, "statement_id", id, "name")
  return given
end

---Submits a statement, as the wire has it: `statement`, `warehouse_id`, ... A statement that has failed is an answer
---too: see `status.state`. Waits as long as its `wait_timeout` says.
---@param body table
---@param given? sluice.CallOptions
---@return table? answer
---@return sluice.Error? err
function methods:execute_statement(body, given)
  given = check_call("sql:execute_statement", self, given)
  options.argument("sql:execute_statement", "body", body, "table")
  return submit(self, body, given)
end

---How a statement stands, with the first chunk of its result. Waits.
---@param statement_id string
---@param given? sluice.CallOptions
---@return table? answer
---@return sluice.Error? err
function methods:get_statement(statement_id, given)
  given = check_id("sql:get_statement", self, statement_id, given)
  return get(self, statement_id, given)
end

---One chunk of a result. Waits.
---@param statement_id string
---@param chunk_index integer from 0
---@param given? sluice.CallOptions
---@return table? data
---@return sluice.Error? err
function methods:get_statement_result_chunk_n(statement_id, chunk_index, given)
  given = check_id("sql:get_statement_result_chunk_n", self, statement_id, given)
  options.argument("sql:get_statement_result_chunk_n", "chunk_index", chunk_index, "integer")
  return chunk(self, statement_id, chunk_index, given)
end

---Cancels a statement. One that has ended is left as it is. Waits.
---@param statement_id string
---@param given? sluice.CallOptions
---@return table? nothing an empty table
---@return sluice.Error? err
function methods:cancel_execution(statement_id, given)
  given = check_id("sql:cancel_execution", self, statement_id, given)
  return cancel(self, statement_id, given)
end

-- ---- a statement and its rows ----

local function is_wait(value)
  local is_known = type(value) == "number" and (value == 0 or (value >= 5 and value <= 50))
  return is_known, "0, or 5 to 50 seconds"
end

local function is_word(...)
  local words = { ... }
  return function(value)
    for _, word in ipairs(words) do
      if value == word then return true end
    end
    return false, '"' .. table.concat(words, '" or "') .. '"'
  end
end

---The options of workspace.sql:execute.
---@class sluice.SqlOptions
---@field warehouse_id? string the workspace's own: DATABRICKS_WAREHOUSE_ID
---@field parameters? table<string, any> for the markers `:name`; a string, number or boolean, json.null, or `{ value =, type = "DATE" }`
---@field catalog? string of names without one
---@field schema? string of names without one
---@field timeout? number seconds for all of it; then the statement is cancelled; none
---@field wait_timeout? number seconds that the server may wait before it first answers: 0, or 5 to 50; 0
---@field on_wait_timeout? "CONTINUE"|"CANCEL" what becomes of a statement that is not done by then; "CONTINUE"
---@field row_limit? integer
---@field byte_limit? integer
---@field disposition? "INLINE"|"EXTERNAL_LINKS" chunks come in the answers (25 MiB at most), or by links that are followed; "INLINE"
---@field query_tags? table
---@field on_poll? fun(answer: table, elapsed: number) called after each look
local OPTIONS <const> = {
  warehouse_id = "name?",
  parameters = "table?",
  catalog = "name?",
  schema = "name?",
  timeout = "positive?",
  wait_timeout = is_wait,
  on_wait_timeout = is_word("CONTINUE", "CANCEL"),
  row_limit = "count?",
  byte_limit = "count?",
  disposition = is_word("INLINE", "EXTERNAL_LINKS"),
  query_tags = "table?",
  on_poll = "callable?",
}

local HOW_TO_SET <const> = "no warehouse is set: give warehouse_id=, or set DATABRICKS_WAREHOUSE_ID"

local function body_of(self, text, given)
  local warehouse = given.warehouse_id or self._warehouse
  if not warehouse then
    return nil, errors.new("ConfigError", { operation = "execute SQL statement", message = HOW_TO_SET })
  end
  return {
    statement = text, warehouse_id = warehouse, parameters = parameters.of("sql:execute", given.parameters),
    catalog = given.catalog, schema = given.schema, row_limit = given.row_limit,
    byte_limit = given.byte_limit,
    wait_timeout = ("%ds"):format(math.floor(given.wait_timeout or 0)),
    on_wait_timeout = given.on_wait_timeout,
    disposition = given.disposition, query_tags = given.query_tags, format = "JSON_ARRAY",
  }
end

local function link_error(res, body)
  return errors.new(errors.kind_of(res.status), {
    operation = "download chunk of SQL result", status = res.status, message = errors.excerpt(body),
  })
end

-- A link is signed: it needs no token, must not get ours, and is never shown.
local function download(self, link)
  local fields = {}
  for name, value in pairs(type(link.http_headers) == "table" and link.http_headers or {}) do
    fields[name:lower()] = value
  end
  local transport = self._transport or require "sluice.http"
  local res, err = transport:handle {
    method = "GET", url = tostring(link.external_link), headers = fields, timeout = DOWNLOAD,
  }
  if not res then return nil, err end
  local body
  body, err = res:text()
  if not body then return nil, err end
  if res.status < 200 or res.status > 299 then return nil, link_error(res, body) end
  return body
end

---Executes a statement and waits for its end. Whoever stops waiting (a cancelled task, a deadline, `timeout`) cancels
---it in the warehouse. Waits.
---@param text string one statement
---@param given? sluice.SqlOptions
---@return sluice.SqlResult? result its rows come with `rows()`, `next()` or `collect()`
---@return sluice.Error? err of a statement that failed: a kind by its error_code, with `code`, `sql_state`, `statement_id`; ConfigError without a warehouse; OperationTimeout
function methods:execute(text, given)
  check_self("sql:execute", self)
  options.argument("sql:execute", "statement", text, "name")
  given = options.check("sql:execute", given, OPTIONS)
  local body, err = body_of(self, text, given)
  if not body then return nil, err end
  local answer
  answer, err = statement.run({
    submit = function(what) return submit(self, what) end,
    get = function(id) return get(self, id) end,
    cancel = function(id) return cancel(self, id) end,
  }, body, given.timeout, given.on_poll)
  if not answer then return nil, err end
  return result.new({
    chunk = function(id, index) return chunk(self, id, index) end,
    download = function(link) return download(self, link) end,
  }, answer)
end

return sql
