-- SPDX-License-Identifier: MIT
-- What the metrics of requests are called. The first ones follow OpenTelemetry's conventions for GenAI, version 1.42
-- (all of them at stability Development), by the rules of its mapping to Prometheus.

local names = {}

-- Bounds in seconds, as the conventions advise; tokens in powers of four.
local SECONDS <const> = {
  0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
}
local TOKENS <const> = {
  1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
}
-- Waiting is shorter, where all is well.
local WAITS <const> = { 0.0001, 0.001, 0.01, 0.1, 1, 10, 60 }

-- The endpoint is the model that is asked for.
local OPERATION <const> = {
  "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model", "variant",
}

local function with(labels, more)
  local copy = table.move(labels, 1, #labels, 1, {})
  copy[#copy + 1] = more
  return copy
end

---Distributions, by what they are of.
---@type table<string, sluice.metrics.HistogramOptions>
names.histograms = {
  duration = {
    name = "gen_ai_client_operation_duration_seconds", buckets = SECONDS,
    labels = with(OPERATION, "error_type"),
    help = "From the request to the end of its answer; not of those whose caller left.",
  },
  first_chunk = {
    name = "gen_ai_client_operation_time_to_first_chunk_seconds", buckets = SECONDS, labels = OPERATION,
    help = "From the request to the first content of a stream.",
  },
  gap = {
    name = "gen_ai_client_operation_time_per_output_chunk_seconds", buckets = SECONDS, labels = OPERATION,
    help = "Between two chunks of a stream, as they are read.",
  },
  tokens = {
    name = "gen_ai_client_token_usage", buckets = TOKENS, labels = with(OPERATION, "gen_ai_token_type"),
    help = "Tokens of a request, where the answer tells them.",
  },
  pool_wait = {
    name = "sluice_pool_wait_seconds", buckets = WAITS, labels = { "endpoint" },
    help = "Time that a request waited for a connection of the pool.",
  },
}

---What is counted at the end of a request.
---@type table<string, sluice.metrics.MetricOptions>
names.counters = {
  requests = {
    name = "sluice_requests_total", labels = { "endpoint", "outcome" },
    help = "Requests by outcome: success, error, or aborted, where the caller left.",
  },
  retries = {
    name = "sluice_retries_total", labels = { "endpoint" }, help = "Tries beyond the first of each request.",
  },
  cache = {
    name = "sluice_cache_results_total", labels = { "endpoint", "result" },
    help = "Answers by what the cache had to do with them: hit, stale, miss, join or bypass.",
  },
  assignments = {
    name = "sluice_ab_assignments_total", labels = { "endpoint", "variant" },
    help = "Requests by the variant of an experiment that they were assigned to.",
  },
  truncated = {
    name = "sluice_truncated_streams_total", labels = { "endpoint" },
    help = "Streams that broke off before their end.",
  },
  degraded = {
    name = "sluice_degraded_total", labels = { "endpoint", "answered_by", "error_type" },
    help = "Answers of another endpoint, or old ones, in the place of the endpoint's.",
  },
}

---What goes up and down.
---@type table<string, sluice.metrics.MetricOptions>
names.gauges = {
  active = {
    name = "sluice_active_requests", labels = { "endpoint" }, help = "Requests and streams under way.",
  },
}

return names
