-- SPDX-License-Identifier: MIT
-- The inference tables: a row for each query of an endpoint whose config asks for one, in a SQLite database in memory.

local failure = require "sluice.emulator.sql.failure"
local json = require "sluice.json"
local options = require "sluice.options"
local task = require "sluice.task"
local wire = require "sluice.emulator.wire"

local tables = {}

---@class sluice.emulator.Tables
---@field database table? of sluice.sqlite; opened when it is first needed
local methods = {}
local metatable = { __name = "sluice.emulator.tables", __index = methods }

-- As the service: longer payloads are not kept.
local LARGEST_PAYLOAD <const> = 1 << 20

-- The oldest rows go where there are more, so that an emulator that runs for days keeps its size.
local MOST_ROWS <const>, SWEEP_EACH <const> = 200000, 1000

local SCHEMA <const> = [[
CREATE TABLE log (
  row INTEGER PRIMARY KEY, table_name TEXT, request_id TEXT, client_request_id TEXT, time_ms INTEGER,
  status_code INTEGER, duration_ms INTEGER, request TEXT, response TEXT, metadata TEXT, error_codes TEXT,
  served_entity TEXT, requester TEXT);
CREATE INDEX log_by_table ON log (table_name, time_ms);
PRAGMA case_sensitive_like = ON;
]]

local FULL <const> = "strftime('%Y-%m-%d %H:%M:%f', time_ms / 1000.0, 'unixepoch')"
local DAY <const> = "date(time_ms / 1000, 'unixepoch')"

-- Name, type, and what it is in the log.
local COLUMNS <const> = {
  legacy = {
    { "databricks_request_id", "STRING", "request_id" }, { "client_request_id", "STRING",
      "client_request_id" },
    { "date", "DATE", DAY }, { "timestamp_ms", "BIGINT", "time_ms" }, { "status_code", "INT", "status_code" },
    { "sampling_fraction", "DOUBLE", "1.0" }, { "execution_time_ms", "BIGINT", "duration_ms" },
    { "request", "STRING", "request" }, { "response", "STRING", "response" },
    { "request_metadata", "MAP", "metadata" },
  },
  gateway = {
    { "databricks_request_id", "STRING", "request_id" }, { "request_date", "DATE", DAY },
    { "client_request_id", "STRING", "client_request_id" }, { "request_time", "TIMESTAMP", FULL },
    { "status_code", "INT", "status_code" }, { "sampling_fraction", "DOUBLE", "1.0" },
    { "execution_duration_ms", "BIGINT", "duration_ms" }, { "request", "STRING", "request" },
    { "response", "STRING", "response" }, { "logging_error_codes", "ARRAY", "error_codes" },
    { "served_entity_id", "STRING", "served_entity" }, { "requester", "STRING", "requester" },
  },
}

---The tables of an emulator's endpoints.
---@param endpoints sluice.emulator.Endpoints
---@return sluice.emulator.Tables
function tables.new(endpoints)
  return setmetatable({ _endpoints = endpoints, _known = {}, _inserted = 0 }, metatable)
end

-- ---- which there are ----

local function full_name(config, prefix_of)
  local prefix = wire.given(config.table_name_prefix) or prefix_of
  local catalog, schema = wire.given(config.catalog_name), wire.given(config.schema_name)
  if type(catalog) ~= "string" or type(schema) ~= "string" or type(prefix) ~= "string" then return nil end
  return ("%s.%s.%s"):format(catalog, schema, prefix)
end

-- A table that was written once stays, whatever becomes of its endpoint. Beside each payload table stands the same log
-- with the columns of the older kind.
local function note(self, name, kind)
  local payload = (name .. "_payload"):lower()
  if self._known[payload] then return payload end
  self._known[payload] = { name = name .. "_payload", log = payload, kind = kind }
  local beside = name .. "_request_response"
  self._known[beside:lower()] = { name = beside, log = payload, kind = "legacy" }
  return payload
end

-- The logs that an endpoint writes to.
local function logs_of(self, record)
  local logs = {}
  local version = record.live or record.pending
  local capture = version and version.config.auto_capture_config
  local gateway = record.ai_gateway and wire.given(record.ai_gateway.inference_table_config)
  for kind, config in pairs { legacy = capture, gateway = gateway } do
    local name = config and config.enabled == true and full_name(config, record.name)
    if name then logs[#logs + 1] = note(self, name, kind) end
  end
  return logs
end

local function names_of(self)
  for _, record in ipairs(self._endpoints:list()) do logs_of(self, record) end
  return self._known
end

-- ---- the database ----

---The database, opened where it was not.
---@return table? database of sluice.sqlite; nil where this build has none
function methods:open()
  if self.database ~= nil then return self.database or nil end
  local there, sqlite = pcall(require, "sluice.sqlite")
  self.database = false
  if not there then return nil end
  self.database = assert(sqlite.open ":memory:")
  assert(self.database:exec(SCHEMA))
  require("sluice.emulator.sql.in_lua").define(self.database)
  return self.database
end

local function missing(self, name, at)
  local names = {}
  for _, each in pairs(names_of(self)) do names[each.name] = true end
  local near = options.nearest(name, names)
  failure.raise("TABLE_OR_VIEW_NOT_FOUND", at, "The table or view `%s` cannot be found.%s", name:gsub("%.",
    "`.`"),
    near and (" Did you mean `%s`?"):format(near:gsub("%.", "`.`")) or "")
end

---What a table is in SQLite. Raises a failure where there is none of that name.
---@param parts string[] the parts of its name
---@param catalog string?
---@param schema string?
---@param at integer
---@return string sql
---@return sluice.emulator.sql.Column[]
---@return string[] parts of its full name
function methods:find(parts, catalog, schema, at)
  local full = { table.unpack(parts) }
  if #full == 1 and schema then table.insert(full, 1, schema) end
  if #full == 2 and catalog then table.insert(full, 1, catalog) end
  local name = table.concat(full, ".")
  local found = names_of(self)[name:lower()] or missing(self, name, at)
  local list, columns = {}, {}
  for index, column in ipairs(COLUMNS[found.kind]) do
    list[index] = ("%s AS %s"):format(column[3], column[1])
    columns[index] = { name = column[1], type = column[2] }
  end
  local log = found.log:gsub("'", "''")
  return ("SELECT %s FROM log WHERE table_name = '%s'"):format(table.concat(list, ", "), log), columns, full
end

-- ---- writing ----

local INSERT <const> = [[INSERT INTO log (table_name, request_id, client_request_id, time_ms, status_code,
  duration_ms,
  request, response, metadata, error_codes, served_entity, requester) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?)]]
local SWEEP <const> = "DELETE FROM log WHERE row <= (SELECT max(row) FROM log) - ?"

local function payload(text, code, codes)
  if text and #text > LARGEST_PAYLOAD then
    codes[#codes + 1] = code
    return nil
  end
  return text
end

local function metadata_of(record, entity)
  return json.encode({
    endpoint_name = record.name, model_name = entity and (entity.entity_name or entity.name),
    model_version = entity and entity.entity_version,
  }, { canonical = true })
end

local function write(self, log, row)
  local codes = json.array {}
  local request = payload(row.request, "MAX_REQUEST_SIZE_EXCEEDED", codes)
  local response = payload(row.response, "MAX_RESPONSE_SIZE_EXCEEDED", codes)
  local null = json.null
  assert(self.database:exec(INSERT, log, row.request_id, row.client_request_id or null, row.time_ms,
    row.status,
    row.duration_ms, request or null, response or null, row.metadata,
      #codes > 0 and json.encode(codes) or null,
    row.served_entity or null, row.requester or null))
  self._inserted = self._inserted + 1
  if self._inserted % SWEEP_EACH == 0 then assert(self.database:exec(SWEEP, MOST_ROWS)) end
end

-- ---- watching an answer ----

-- A streamed answer is kept as the list of its events: how the service keeps one is not known.
local function events_of(frames)
  local events = {}
  for data in table.concat(frames):gmatch "data: (.-)\n\n" do
    if data ~= "[DONE]" then events[#events + 1] = data end
  end
  return "[" .. table.concat(events, ",") .. "]"
end

local function served_by(record, result)
  local name = result.headers and result.headers["served-model-name"]
  for _, each in ipairs(record.live and record.live.config.served_entities or {}) do
    if each.name == name then return each end
  end
  return nil
end

-- Lets a streamed body through and calls finish with all of it at its end.
local function watch_body(result, finish)
  local body, close, frames, length = result.body, result.close, {}, 0
  function result.body()
    local piece, err = body()
    if piece and length <= LARGEST_PAYLOAD then frames[#frames + 1] = piece end
    length = length + (piece and #piece or 0)
    return piece, err
  end
  function result.close()
    if close then close() end
    -- a caller who leaves cancels what runs here
    task.shield(finish, length <= LARGEST_PAYLOAD and events_of(frames) or table.concat(frames))
  end
end

---Begins to watch a query; nil where nothing writes it down.
---@param record table of the endpoint
---@param request sluice.web.Request
---@param body table the decoded one
---@return (fun(result: table): table)? watch takes the result of the handler, and gives it back
function methods:begin(record, request, body)
  local logs = logs_of(self, record)
  if #logs == 0 or not self:open() then return nil end
  local started, client_id = task.now(), wire.given(body.client_request_id)
  local row = {
    request_id = request.id or wire.uuid(), time_ms = wire.milliseconds(), request = request:text() or "",
    client_request_id = type(client_id) == "string" and client_id or nil, requester = request.caller.name,
  }
  return function(result)
    local entity = served_by(record, result)
    row.status, row.metadata = result.status or 200, metadata_of(record, entity)
    row.served_entity = entity and entity.name
    local function finish(text)
      row.response, row.duration_ms = text, math.floor((task.now() - started) * 1000 + 0.5)
      for _, log in ipairs(logs) do write(self, log, row) end
    end
    if type(result.body) == "function" then
      watch_body(result, finish)
    else
      finish(result.json ~= nil and json.encode(result.json) or result.body or "")
    end
    return result
  end
end

return tables
