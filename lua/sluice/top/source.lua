-- SPDX-License-Identifier: MIT
-- Where `sluice top` reads: the page of metrics and the tasks of another program.

local errors = require "sluice.errors"
local http = require "sluice.http"
local json = require "sluice.json"
local page = require "sluice.metrics.page"
local secret = require "sluice.secret"
local task = require "sluice.task"

local source = {}

-- A page of 100,000 series has a tenth of it.
local MAX_PAGE <const> = 64 << 20

---@class sluice.top.Source
---@field metrics_url string
---@field tasks_url string
local methods = {}
local metatable = { __name = "sluice.top.source", __index = methods }

---A program to look at. A path that ends in /metrics is asked as it is; of any other address its /metrics.
---@param address string "http://127.0.0.1:8080", with or without the scheme and a path
---@param given { timeout: number, key?: string|sluice.Secret } `timeout`: seconds of each question; `key`: where the pages need one
---@return sluice.top.Source? source nil where that is no address
function source.new(address, given)
  if not address:find "^%a[%w+.-]*://" then address = "http://" .. address end
  local origin, path = address:match "^([hH][tT][tT][pP][sS]?://[^/?#%s]+)([^?#%s]*)$"
  if not origin then return nil end
  local base = path:match "^(.*)/metrics$"
  if not base then base = "" end
  return setmetatable({
    metrics_url = origin .. base .. "/metrics",
    tasks_url = origin .. base .. "/debug/tasks",
    _timeout = given.timeout,
    _headers = given.key and { authorization = secret.join("Bearer ", given.key) } or nil,
  }, metatable)
end

local function get(self, url)
  return http.request {
    url = url, headers = self._headers, timeout = { total = self._timeout }, max_response = MAX_PAGE,
  }
end

local function no_page(url, message)
  return nil, errors.new("ProtocolError", { operation = "read metrics", object = url, message = message })
end

local function read_tasks(self)
  local answer = get(self, self.tasks_url)
  if not answer or answer.status ~= 200 then return nil end
  local told = json.decode(answer.body)
  local is_list = type(told) == "table" and type(told.tasks) == "table" and math.type(told.total)
  if not is_list then return nil end
  for _, each in ipairs(told.tasks) do
    if type(each) ~= "table" then return nil end
  end
  return told
end

---Reads both. Waits. That tasks are not told is no failure.
---@return sluice.top.Reading?
---@return sluice.Error? err
function methods:read()
  local answer, err = get(self, self.metrics_url)
  if not answer then return nil, err end
  if answer.status ~= 200 then
    return no_page(self.metrics_url, ("it answers with %d"):format(answer.status))
  end
  local read, problem = page.read(answer.body)
  if not read then return no_page(self.metrics_url, "that is no page of metrics: " .. problem) end
  local reading = { page = read, at = task.wall(), started = task.now() }
  reading.tasks = read_tasks(self)
  return reading
end

return source
