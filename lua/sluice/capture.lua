-- SPDX-License-Identifier: MIT
-- The log of requests: rows of the table `inference_log`, in a SQLite file that a thread writes. See docs/ab.md.

local core = require "sluice.core.sqlite"
local errors = require "sluice.errors"
local log = require "sluice.log"
local options = require "sluice.options"
local sqlite = require "sluice.sqlite"
local task = require "sluice.task"

local capture = {}

---@class sluice.CaptureOptions
---@field max_bytes? integer of the file, 1 GiB: beyond it the oldest rows go; looked at after each 1000 rows or 4 MiB
---@field max_age? number seconds that a row is kept; for ever
local OPTIONS <const> = { max_bytes = "count?", max_age = "positive?" }

local MAX_BYTES <const> = 1 << 30

-- PRAGMA user_version of the files.
local VERSION <const> = 1

-- Old rows are looked for after so many new ones, or bytes of them.
local SWEEP_ROWS <const>, SWEEP_BYTES <const> = 1000, 4 << 20

-- Seconds between two warnings about rows that were lost.
local WARN_AGAIN <const> = 10

local COLUMNS <const> = {
  "databricks_request_id", "client_request_id", "timestamp_ms", "status_code", "sampling_fraction",
  "execution_time_ms", "request", "response", "request_metadata", "logging_error_codes", "served_entity_id",
  "requester", "variant", "ttft_ms", "input_tokens", "output_tokens", "cache_result", "error_kind",
}

local SCHEMA <const> = [[
CREATE TABLE inference_log (
  databricks_request_id TEXT,
  client_request_id TEXT,
  timestamp_ms INTEGER NOT NULL,
  status_code INTEGER,
  sampling_fraction REAL NOT NULL DEFAULT 1,
  execution_time_ms INTEGER,
  request TEXT,
  response TEXT,
  request_metadata TEXT,
  logging_error_codes TEXT,
  served_entity_id TEXT,
  requester TEXT,
  variant TEXT,
  ttft_ms REAL,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cache_result TEXT,
  error_kind TEXT,
  date DATE AS (strftime('%Y-%m-%d', timestamp_ms / 1000, 'unixepoch')),
  request_date DATE AS (strftime('%Y-%m-%d', timestamp_ms / 1000, 'unixepoch')),
  request_time TIMESTAMP AS (strftime('%Y-%m-%d %H:%M:%S', timestamp_ms / 1000, 'unixepoch')
    || printf('.%03d', timestamp_ms % 1000)),
  execution_duration_ms INTEGER AS (execution_time_ms)
);
CREATE INDEX inference_log_by_time ON inference_log (timestamp_ms);
]]

local function placeholders()
  local list = {}
  for index, name in ipairs(COLUMNS) do
    list[index] = name == "sampling_fraction" and "coalesce(?, 1)" or "?"
  end
  return table.concat(list, ", ")
end

local INSERT <const> = ("INSERT INTO inference_log (%s) VALUES (%s)")
  :format(table.concat(COLUMNS, ", "), placeholders())

local BY_AGE <const> = "DELETE FROM inference_log WHERE timestamp_ms < ?1 - %d"

-- Of a file that is too large the oldest rows go, until it is a tenth below its bound.
local BY_SIZE <const> = [[
WITH size(used) AS (SELECT ((SELECT page_count FROM pragma_page_count)
  - (SELECT freelist_count FROM pragma_freelist_count)) * (SELECT page_size FROM pragma_page_size))
DELETE FROM inference_log WHERE rowid <= (SELECT max(rowid) - (max(rowid) - min(rowid)) * 0.9 * %d / used
  FROM inference_log, size WHERE used > %d)]]

---Where layers.capture puts rows: anything with this method, which may not wait.
---@class sluice.CaptureStore
---@field add fun(self: sluice.CaptureStore, row: table) `row`: a fresh table by the names of the columns; what is not known is not in it

---A store in a SQLite file, a `<close>` value. Rows are written by the instance's writer thread, those that came
---together in one transaction; the end of the program writes what is left.
---@class sluice.Capture: sluice.CaptureStore
---@field path string
local methods = {}
local metatable = {
  __name = "sluice.capture",
  __index = options.strict("a capture store", methods, { "path" }),
}

function metatable.__close(self) self:close() end

-- ---- opening ----

local function mismatch(path, text, ...)
  return errors.new("SchemaMismatch", {
    operation = "open the log of requests", object = path, message = text:format(...),
  })
end

-- Makes the table in a file that is new. Nothing of what stands in another one is touched.
local function prepare(db)
  local version, err = db:first "PRAGMA user_version"
  if not version then return nil, err end
  version = version.user_version
  if version == VERSION then
    local there = db:first "SELECT 1 AS yes FROM sqlite_schema WHERE name = 'inference_log'"
    if there then return true end
  end
  local other
  other, err = db:first "SELECT name FROM sqlite_schema LIMIT 1"
  if err then return nil, err end
  if not other and version == 0 then
    local made
    made, err = db:exec(SCHEMA .. "PRAGMA user_version = " .. VERSION)
    return made ~= nil or nil, err
  end
  if version == 0 or version == VERSION then
    local name = other and other.name or ""
    return nil, mismatch(db.path, 'it is a database of something else: it has "%s"', name)
  end
  return nil, mismatch(db.path, "its schema has version %d, and this program writes version %d; "
    .. "give another path, or move it away", version, VERSION)
end

local function prepare_file(path)
  local made, text = core.create(path)
  if not made then
    return nil, errors.new("DatabaseError", {
      operation = "open the log of requests", object = path, code = "SQLITE_CANTOPEN", message = text,
    })
  end
  local db, err = sqlite.open(path)
  if not db then return nil, err end
  local good
  -- two programs that begin at once: one of them makes the table
  good, err = db:transaction(prepare)
  if good then good, err = db:query "PRAGMA journal_mode = WAL" end
  if not good then
    db:close()
    return nil, err
  end
  return db
end

local function sweeps_of(given)
  local bytes = given.max_bytes or MAX_BYTES
  local sweeps = { BY_SIZE:format(bytes, bytes) }
  if given.max_age then table.insert(sweeps, 1, BY_AGE:format(given.max_age * 1000 // 1 | 0)) end
  return sweeps
end

---Opens a store, made where it is missing, readable for its owner alone. What was written with another
---schema is refused (SchemaMismatch) and stays as it is. Several programs may write to one file.
---@param path string
---@param given? sluice.CaptureOptions
---@return sluice.Capture? store
---@return sluice.Error? err
function capture.open(path, given)
  options.argument("capture.open", "path", path, "name")
  given = options.check("capture.open", given, OPTIONS)
  local db, err = prepare_file(path)
  if not db then return nil, err end
  local sweeps = sweeps_of(given)
  local appender, code, text = core.appender(path, INSERT, COLUMNS, sweeps, SWEEP_ROWS, SWEEP_BYTES)
  db:close()
  if not appender then
    return nil, errors.new("DatabaseError", {
      operation = "open the log of requests", object = path, code = code, message = text,
    })
  end
  return setmetatable({ path = path, _appender = appender, _lost = 0, _warned = -math.huge }, metatable)
end

-- ---- rows ----

local function warn(self, lost)
  self._lost = self._lost + lost
  if task.now() < self._warned + WARN_AGAIN then return end
  local _, _, _, code = self._appender:counts()
  log.warn("capture_lost", { path = self.path, rows = self._lost, code = code })
  self._lost, self._warned = 0, task.now()
end

---Adds a row, to be written soon. Never waits: where too many wait to be written, or the disk refuses them,
---rows are lost, counted, and told of in the log.
---@param row table
function methods:add(row)
  if type(row) ~= "table" then options.argument("capture:add", "row", row, "table") end
  local lost = self._appender:add(row)
  if lost and lost > 0 then warn(self, lost) end
end

---What became of the rows so far.
---@return { queued: integer, dropped: integer, failed: integer, code: string? } counts `queued`: to be written; `dropped`: there was no room; `failed`: SQLite refused them, `code` says why
function methods:stats()
  local queued, dropped, failed, code = self._appender:counts()
  return { queued = queued or 0, dropped = dropped or 0, failed = failed or 0, code = code }
end

---Waits until all rows so far are written, so that a query finds them.
function methods:flush()
  self._appender:flush()
end

---Writes what is left, and closes the file; rows that are added later are not written. Idempotent, never waits.
function methods:close()
  self._appender:close()
end

return capture
