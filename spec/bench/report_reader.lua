-- SPDX-License-Identifier: MIT
-- Makes a log of ROWS in SQLite (`make PATH ROWS`), or reports on one (`read PATH`) and prints what that took.

local report = require "sluice.report"
local sqlite = require "sluice.sqlite"
local task = require "sluice.task"

local what, path, rows = arg[1], arg[2], tonumber(arg[3])

-- Lognormal latencies and one failure in a hundred, as SQLite's own functions make them.
local FILL <const> = [[
WITH RECURSIVE
  n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d),
  r(i, a, b, c) AS MATERIALIZED (
    SELECT i, abs(random() %% 10000) / 1e4, abs(random() %% 10000) / 1e4 + 1e-5, abs(random() %% 10000) / 1e4
    FROM n)
INSERT INTO inference_log SELECT
  'request-' || i, 1700000000000 + i * 100, CASE WHEN c < 0.01 THEN 500 ELSE 200 END,
  CAST(300 * exp(sqrt(-2 * ln(b)) * cos(6.2831853 * a) * 0.5) AS INTEGER),
  '{"endpoint_name":"chat","model_name":"one"}', CASE WHEN a < 0.5 THEN 'control' ELSE 'treatment' END,
  50 + 100 * c, 12, CAST(100 * b AS INTEGER), NULL, CASE WHEN c < 0.01 THEN 'InternalError' END FROM r]]

if what == "make" then
  os.remove(path)
  local db <close> = assert(sqlite.open(path))
  assert(db:exec [[CREATE TABLE inference_log(
    databricks_request_id TEXT, timestamp_ms INTEGER, status_code INTEGER, execution_time_ms INTEGER,
    request_metadata TEXT, variant TEXT, ttft_ms REAL, input_tokens INTEGER, output_tokens INTEGER,
    cache_result TEXT, error_kind TEXT)]])
  assert(db:exec(FILL:format(rows)))
  return
end

local db <close> = assert(sqlite.open(path, { read_only = true }))
local started = task.now()
local made = assert(report.ab {
  source = db, control = "control", split = { control = 50, treatment = 50 }, since = 1.7e9,
})
assert(#made:html() > 0)
local status <close> = assert(io.open "/proc/self/status")
local most = status:read("a"):match "VmHWM:%s+(%d+)"
print(("seconds %f cpu %f mb %f"):format(task.now() - started, os.clock(), most / 1024))
