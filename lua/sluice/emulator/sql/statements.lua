-- SPDX-License-Identifier: MIT
-- The statements of an emulator: submitted, run in tasks of their own, looked at, cancelled, forgotten.

local failure = require "sluice.emulator.sql.failure"
local json = require "sluice.json"
local task = require "sluice.task"
local types = require "sluice.emulator.sql.types"
local wire = require "sluice.emulator.wire"

local statements = {}

---@class sluice.emulator.Statements
local methods = {}
local metatable = { __name = "sluice.emulator.statements", __index = methods }

local KEPT_FOR <const>, MOST_KEPT <const> = 3600, 1000 -- seconds after the end, as the service; statements
local MOST_BYTES <const> = 256 << 20 -- of results that are kept
local INLINE_BYTES <const> = 25 << 20
local LINK_TIME <const> = 900 -- seconds
local CHUNK_BYTES <const> = 4 << 20

---The statements of an emulator.
---@param emulator table
---@param given { chunk_rows: integer, statement_time: number }
---@return sluice.emulator.Statements
function statements.new(emulator, given)
  return setmetatable({
    _emulator = emulator, _by_id = {}, _order = {}, _chunk_rows = given.chunk_rows,
      _time = given.statement_time,
  }, metatable)
end

-- ---- reading a request ----

local function read_wait(body)
  local text = wire.given(body.wait_timeout) or "10s"
  local seconds = type(text) == "string" and tonumber(text:match "^(%d+)s$")
  if not seconds or not (seconds == 0 or (seconds >= 5 and seconds <= 50)) then
    return wire.invalid("wait_timeout must be 0s, or 5s to 50s, got %s.", tostring(text))
  end
  return seconds
end

local function one_of(body, key, ...)
  local value = wire.given(body[key])
  if value == nil then return (...) end
  for _, each in ipairs { ... } do
    if value == each then return value end
  end
  return wire.invalid("%s %s is not known to the emulator.", key, tostring(value))
end

local function check_parameters(list)
  if list == nil then return true end
  if not wire.is_list(list) and next(list) ~= nil then return wire.invalid("parameters must be a list.") end
  for _, each in ipairs(list) do
    if not wire.is_object(each) or type(each.name) ~= "string" then
      return wire.invalid("Each of the parameters needs a name.")
    end
    local value = wire.given(each.value)
    if value ~= nil and type(value) ~= "string" then
      return wire.invalid("The value of the parameter %s must be a string.", each.name)
    end
  end
  return true
end

local function check_body(body)
  for _, key in ipairs { "statement", "warehouse_id" } do
    local value = wire.given(body[key])
    if type(value) ~= "string" or value == "" then return wire.invalid("%s is required.", key) end
  end
  for _, key in ipairs { "catalog", "schema" } do
    local value = wire.given(body[key])
    if value ~= nil and type(value) ~= "string" then return wire.invalid("%s must be a string.", key) end
  end
  for _, key in ipairs { "row_limit", "byte_limit" } do
    local value = wire.given(body[key])
    if value ~= nil and (wire.integer(value) or 0) < 1 then
      return wire.invalid("%s must be a whole number of at least 1.", key)
    end
  end
  return check_parameters(wire.given(body.parameters))
end

local function read_body(body)
  local ok, refusal = check_body(body)
  if not ok then return nil, refusal end
  local made = { body = body }
  made.wait, refusal = read_wait(body)
  if not made.wait then return nil, refusal end
  for key, choices in pairs {
    on_wait_timeout = { "CONTINUE", "CANCEL" }, disposition = { "INLINE", "EXTERNAL_LINKS" },
      format = { "JSON_ARRAY" },
  } do
    made[key], refusal = one_of(body, key, table.unpack(choices))
    if not made[key] then return nil, refusal end
  end
  return made
end

-- ---- running ----

-- Rows by chunks: places of their first rows.
local function chunks_of(rows, chunk_rows)
  local list, bytes = {}, 0
  for number, cells in ipairs(rows) do
    local last = list[#list]
    if not last or last.row_count >= chunk_rows or bytes > CHUNK_BYTES then
      last = { chunk_index = #list, row_offset = number - 1, row_count = 0, byte_count = 0 }
      list[#list + 1], bytes = last, 0
    end
    last.row_count = last.row_count + 1
    for _, text in ipairs(cells) do bytes = bytes + (type(text) == "string" and #text or 4) + 3 end
    last.byte_count = bytes
  end
  return list
end

local TOO_LARGE <const> = [[Inline byte limit exceeded. Statements executed with disposition=INLINE can ]]
  .. [[have a result size of at most %d bytes. Please execute the statement with disposition=EXTERNAL_LINKS.]]

local function succeed(statement, outcome, chunk_rows)
  if statement.disposition == "INLINE" and outcome.bytes > INLINE_BYTES then
    statement.state = "FAILED"
    statement.error = { error_code = "BAD_REQUEST", message = TOO_LARGE:format(INLINE_BYTES) }
    return
  end
  statement.state, statement.outcome = "SUCCEEDED", outcome
  statement.chunks = chunks_of(outcome.rows, chunk_rows)
end

local function perform(self, statement, authorization)
  statement.state = "RUNNING"
  if self._time > 0 then task.sleep(self._time) end
  local run = require "sluice.emulator.sql.run" -- few emulators are asked for SQL
  local outcome, why = run.statement(self._emulator, statement.body, authorization)
  if outcome then
    succeed(statement, outcome, self._chunk_rows)
  else
    statement.error, statement.sql_state = failure.on_wire(why, statement.body.statement)
    statement.state = "FAILED"
  end
end

local function start(self, statement, authorization)
  self._group = self._group or task.group()
  statement.job = self._group:spawn(function()
    local ok, raised = pcall(perform, self, statement, authorization)
    statement.ended = task.now()
    if ok or statement.state == "CANCELED" then return end
    statement.state = "FAILED"
    statement.error = { error_code = "INTERNAL_ERROR", message = tostring(raised) }
  end)
end

local function is_over(statement) return statement.ended ~= nil end

-- Those that nobody can ask for any more, and the oldest where there are too many, or their results too large.
local function forget(self)
  local kept, now, bytes = {}, task.now(), 0
  for index = #self._order, 1, -1 do
    local statement = self._order[index]
    bytes = bytes + (statement.outcome and statement.outcome.bytes or 0)
    local is_too_much = #kept >= MOST_KEPT or bytes > MOST_BYTES
    if is_over(statement) and (is_too_much or now - statement.ended > KEPT_FOR) then
      self._by_id[statement.id] = nil
    else
      kept[#kept + 1] = statement
    end
  end
  self._order = {}
  for index = #kept, 1, -1 do self._order[#self._order + 1] = kept[index] end
end

local function cancel(statement)
  if is_over(statement) or statement.state == "CANCELED" then return end
  statement.state = "CANCELED"
  statement.ended = task.now()
  statement.job:cancel "cancel"
end

-- ---- what is told ----

local function manifest_of(statement)
  local outcome = statement.outcome
  local columns = json.array {}
  for index, column in ipairs(outcome.columns) do
    columns[index] = {
      name = column.name, position = index - 1, type_name = column.type, type_text = types.text(column.type),
    }
  end
  return {
    format = "JSON_ARRAY", schema = { column_count = #columns, columns = columns },
    chunks = json.array(statement.chunks), total_chunk_count = #statement.chunks,
    total_row_count = #outcome.rows,
    total_byte_count = outcome.bytes, truncated = outcome.is_truncated,
  }
end

local PATH <const> = "/api/2.0/sql/statements"

local function rows_of(statement, chunk)
  return json.array(table.move(statement.outcome.rows, chunk.row_offset + 1,
    chunk.row_offset + chunk.row_count, 1,
    {}))
end

local function link_to(statement, chunk, base)
  statement.secret = statement.secret or wire.hex(16)
  return {
    external_link = ("%s/emulator/results/%s/%d?key=%s"):format(base, statement.id, chunk.chunk_index,
      statement.secret),
    expiration = os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(task.wall() + LINK_TIME)),
  }
end

-- The ResultData of a chunk; an empty result has none.
local function data_of(statement, index, base)
  local chunk = statement.chunks[index + 1]
  if not chunk then return { data_array = index == 0 and json.array {} or nil } end
  local data = {
    chunk_index = chunk.chunk_index, row_offset = chunk.row_offset, row_count = chunk.row_count,
    byte_count = chunk.byte_count,
  }
  if statement.chunks[index + 2] then
    data.next_chunk_index = index + 1
    data.next_chunk_internal_link = ("%s/%s/result/chunks/%d?row_offset=%d"):format(PATH, statement.id,
    index + 1,
      chunk.row_offset + chunk.row_count)
  end
  if statement.disposition == "INLINE" then
    data.data_array = rows_of(statement, chunk)
    return data
  end
  local link = link_to(statement, chunk, base)
  for key, value in pairs(data) do link[key] = value end
  statement.link_ends = task.now() + LINK_TIME
  return { external_links = json.array { link } }
end

local function answer_of(statement, base)
  local answer = {
    statement_id = statement.id,
    status = { state = statement.state, error = statement.error, sql_state = statement.sql_state },
  }
  if statement.state == "SUCCEEDED" then
    answer.manifest = manifest_of(statement)
    answer.result = data_of(statement, 0, base)
  end
  return answer
end

-- ---- the calls ----

---Submits a statement, and waits for its end as long as it says. Waits.
---@param body table the decoded request
---@param authorization any of the caller
---@param base string the URL at which the caller reaches this server
---@return table? answer
---@return sluice.emulator.refusal?
function methods:submit(body, authorization, base)
  if not self._emulator.tables:open() then
    return wire.refuse(501, "NOT_IMPLEMENTED", "This build of the emulator has no SQLite.")
  end
  local statement, refusal = read_body(body)
  if not statement then return nil, refusal end
  forget(self)
  statement.id, statement.state = wire.uuid(), "PENDING"
  self._by_id[statement.id] = statement
  self._order[#self._order + 1] = statement
  start(self, statement, authorization)
  if statement.wait > 0 then
    task.timeout(statement.wait, statement.job.join, statement.job)
    if not is_over(statement) and statement.on_wait_timeout == "CANCEL" then cancel(statement) end
  end
  return answer_of(statement, base)
end

local function find(self, id)
  local statement = self._by_id[id]
  if statement then return statement end
  return wire.refuse(404, "RESOURCE_DOES_NOT_EXIST", "The statement %s was not found.", id)
end

---How a statement stands.
---@param id string
---@param base string
---@return table? answer
---@return sluice.emulator.refusal?
function methods:get(id, base)
  local statement, refusal = find(self, id)
  if not statement then return nil, refusal end
  return answer_of(statement, base)
end

local function find_chunk(statement, index)
  if statement.state ~= "SUCCEEDED" then
    return wire.refuse(400, "BAD_REQUEST", "The statement %s is %s.", statement.id, statement.state)
  end
  if not index or not statement.chunks[index + 1] then
    return wire.invalid("The statement %s has no such chunk; there are %d.", statement.id, #statement.chunks)
  end
  return true
end

---One chunk of a result.
---@param id string
---@param index string|integer
---@param base string
---@return table? data
---@return sluice.emulator.refusal?
function methods:chunk(id, index, base)
  local statement, refusal = find(self, id)
  if not statement then return nil, refusal end
  index = wire.integer(index)
  local ok
  ok, refusal = find_chunk(statement, index)
  if not ok then return nil, refusal end
  return data_of(statement, index, base)
end

---Cancels a statement; one that has ended stays as it is.
---@param id string
---@return table? nothing an empty object
---@return sluice.emulator.refusal?
function methods:cancel(id)
  local statement, refusal = find(self, id)
  if not statement then return nil, refusal end
  cancel(statement)
  return {}
end

---The rows that a link leads to.
---@param id string
---@param index string
---@param key string?
---@return table[]? rows
---@return sluice.emulator.refusal?
function methods:linked(id, index, key)
  local statement = self._by_id[id]
  local is_good = statement and statement.secret and statement.secret == key
    and task.now() < statement.link_ends
  local chunk = is_good and statement.chunks[(wire.integer(index) or -1) + 1]
  if not chunk then return wire.refuse(403, "PERMISSION_DENIED", "The link is not good, or no longer.") end
  return rows_of(statement, chunk)
end

return statements
