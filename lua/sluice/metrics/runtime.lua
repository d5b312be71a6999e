-- SPDX-License-Identifier: MIT
-- Metrics of this program itself: the loop, tasks, memory, connections.

local core = require "sluice.core.task"
local system = require "sluice.core.system"

local runtime = {}

-- Of /proc's counts of time, and of its sizes.
local TICKS <const>, PAGE <const> = 100, 4096

-- A file of /proc; nil where the host does not let us read it, or there is none.
local function read(path)
  local allowed, text = pcall(system.read_file, path)
  return allowed and text or nil
end

local function resident()
  local statm = read "/proc/self/statm"
  local pages = statm and statm:match "^%d+ (%d+)"
  return pages and math.tointeger(tonumber(pages)) * PAGE
end

-- Seconds since 1970.
local function started_at()
  local stat, uptime = read "/proc/self/stat", read "/proc/uptime"
  local fields = stat and stat:match "^.*%) (.*)$"
  local up = uptime and tonumber(uptime:match "^[%d.]+")
  if not fields or not up then return nil end
  local index = 2 -- the state, behind the name, is the third
  for field in fields:gmatch "%S+" do
    index = index + 1
    if index == 22 then return system.wall() - up + tonumber(field) / TICKS end
  end
end

local function client_stats()
  local http = package.loaded["sluice.http"]
  return http and http.stats()
end

local function server_counts()
  local servers = package.loaded["sluice.web.server"]
  if servers then return servers.counts() end
end

local function add_loop(registry)
  local function stat(name, kind, help, field)
    registry[kind](registry, { name = name, help = help, read = function(add) add(core.stats()[field]) end })
  end
  stat("sluice_tasks", "gauge", "Tasks that live.", "tasks")
  stat("sluice_descriptors", "gauge", "Descriptors that the loop watches.", "descriptors")
  stat("sluice_loop_turns_total", "counter", "Turns of the loop in which something was to be done.", "turns")
  stat("sluice_loop_busy_seconds_total", "counter", "Time that these turns took.", "busy")
  stat("sluice_loop_lag_seconds", "gauge",
    "The longest turn in the last 10 to 20 seconds: as long as that whatever was ready had to wait.", "lag")
end

local function add_process(registry)
  registry:gauge { name = "sluice_lua_heap_bytes", help = "Memory of Lua's collector.", read = function(add)
    add(collectgarbage "count" * 1024)
  end }
  registry:counter {
    name = "process_cpu_seconds_total", help = "Processor time of the process, user and system.",
    read = function(add) add(os.clock()) end,
  }
  if resident() then
    registry:gauge {
      name = "process_resident_memory_bytes", help = "Memory of the process that is resident.",
      read = function(add) add(resident()) end,
    }
  end
  local start = started_at()
  if start then
    local gauge = registry:gauge {
      name = "process_start_time_seconds", help = "When the process started, in seconds since 1970.",
    }
    gauge:set(start)
  end
end

local function add_connections(registry)
  registry:gauge {
    name = "http_client_open_connections", labels = { "http_connection_state" },
    help = "Connections of the HTTP client that the program shares.",
    read = function(add)
      local stats = client_stats()
      if not stats then return end
      add(stats.idle, "idle")
      add(stats.open - stats.idle, "active")
    end,
  }
  registry:gauge {
    name = "sluice_http_client_waiting", help = "Requests that wait for a place in the client's pool.",
    read = function(add)
      local stats = client_stats()
      if stats then add(stats.waiting) end
    end,
  }
  registry:gauge {
    name = "sluice_server_connections", help = "Connections to the servers of this program.",
    read = function(add) add(server_counts() or 0) end,
  }
  registry:gauge {
    name = "http_server_active_requests", help = "Requests that the servers of this program answer now.",
    read = function(add)
      local _, working = server_counts()
      add(working or 0)
    end,
  }
end

local function add_version(registry)
  local version = require("sluice").version
  registry:gauge({
    name = "sluice_build_info", help = "The version of Sluice; always 1.", labels = { "version" },
  }):labels(version):set(1)
end

---Adds the metrics of this program to a registry, once. Never waits.
---@param registry sluice.metrics.Registry
function runtime.add(registry)
  if registry:has "sluice_build_info" then return end
  add_version(registry)
  add_loop(registry)
  add_process(registry)
  add_connections(registry)
end

return runtime
