-- SPDX-License-Identifier: MIT
-- The end of the build log of a served entity whose deployment has failed: usually it says why.

local errors = require "sluice.errors"
local task = require "sluice.task"

local buildlog = {}

-- For asking in all; a failure is told without its log rather than late.
local SECONDS <const> = 10

-- What is shown of a log, and for how many entities it is asked.
local LINES <const>, BYTES <const>, ASKED <const> = 20, 2048, 2

-- Whole characters only.
local function last_bytes(text, most)
  if #text <= most then return text end
  local from = #text - most + 1
  while from < #text and (text:byte(from) & 0xC0) == 0x80 do from = from + 1 end
  return text:sub(from)
end

---The last lines of a log, at most 20 and 2 KiB, without control characters; nil where nothing is in it.
---@param log any
---@return string?
function buildlog.last_lines(log)
  if type(log) ~= "string" then return nil end
  local lines = {}
  -- far more than is shown, far less than a log of megabytes
  for line in last_bytes(log, 16 * BYTES):gmatch("[^\r\n]+") do
    line = line:gsub("%c", " "):gsub("%s+$", "")
    if line ~= "" then lines[#lines + 1] = last_bytes(line, BYTES) end
  end
  local from, size = #lines + 1, 0
  while from > 1 and #lines - from + 1 < LINES and size + #lines[from - 1] < BYTES + 1 do
    from = from - 1
    size = size + #lines[from] + 1
  end
  if #lines == 0 then return nil end
  return table.concat(lines, "\n", math.min(from, #lines))
end

-- Those that have failed first, then those that are not ready.
local function suspects(entities)
  local failed, others = {}, {}
  for _, entity in ipairs(entities) do
    local deployment = type(entity.state) == "table" and entity.state.deployment
    local name = type(entity.name) == "string" and entity.name ~= "" and entity.name
    if name and (deployment == "DEPLOYMENT_FAILED" or deployment == "DEPLOYMENT_ABORTED") then
      failed[#failed + 1] = name
    elseif name and deployment ~= "DEPLOYMENT_READY" then
      others[#others + 1] = name
    end
  end
  return table.move(others, 1, #others, #failed + 1, failed)
end

local function ask(endpoints, name, names)
  for index = 1, math.min(#names, ASKED) do
    local answer = endpoints:build_logs(name, names[index], { timeout = SECONDS })
    local lines = answer and buildlog.last_lines(answer.logs)
    if lines then return names[index], lines end
  end
  return nil
end

---The end of the first build log that there is. Waits, at most 10 s.
---@param endpoints sluice.ServingEndpoints
---@param name string of the endpoint
---@param entities table[] the served entities in question
---@return string? served_entity nil where there is no log, or none in time
---@return string? lines
function buildlog.tail(endpoints, name, entities)
  local names = suspects(entities)
  if #names == 0 then return nil end
  local entity, lines = task.timeout(SECONDS, ask, endpoints, name, names)
  if errors.is(lines) then return nil end
  return entity, lines
end

return buildlog
