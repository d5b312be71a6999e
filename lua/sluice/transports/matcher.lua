-- SPDX-License-Identifier: MIT
-- Finds the recording of a request: by method, URL and body, in order; or says which one is nearest.

local errors = require "sluice.errors"
local json = require "sluice.json"

local matcher = {}

---@class sluice.cassette.Matcher
local methods = {}
local metatable = { __name = "sluice.transports.matcher", __index = methods }

-- A copy without the fields that are not to be compared.
local function without(value, ignored)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, inner in pairs(value) do
    if not ignored[key] then copy[key] = without(inner, ignored) end
  end
  return setmetatable(copy, getmetatable(value))
end

-- The boundary of a multipart body is drawn anew for each request.
local function with_plain_boundary(body)
  local boundary = body:match "^%-%-([^\r\n]+)\r\n"
  if not boundary then return body end
  local escaped = boundary:gsub("%p", "%%%0")
  return (body:gsub(escaped, "boundary"))
end

-- What a body is compared by: JSON in its canonical form, everything else as it is.
local function canonical(body, ignored)
  if body == nil or body == "" then return "", nil end
  local value = body:find "^%s*[%[{]" and json.decode(body) or nil
  if value == nil then return with_plain_boundary(body), nil end
  value = without(value, ignored)
  return json.encode(value, { canonical = true }), value
end

---Makes a matcher of records, in their order.
---@param records sluice.cassette.Record[]
---@param ignored? string[] names of JSON fields that are not compared
---@return sluice.cassette.Matcher
function matcher.new(records, ignored)
  local self = setmetatable({ _entries = {}, _queues = {}, _ignored = {} }, metatable)
  for _, name in ipairs(ignored or {}) do self._ignored[name] = true end
  for index, record in ipairs(records) do
    local text, value = canonical(record.request.body, self._ignored)
    local entry = { record = record, text = text, value = value,
      place = record.request.method .. " " .. record.request.url }
    self._entries[index] = entry
    local key = entry.place .. "\n" .. text
    local queue = self._queues[key] or { next = 1 }
    queue[#queue + 1] = record
    self._queues[key] = queue
  end
  return self
end

local function shown(value)
  if value == nil then return "nothing" end
  local text = type(value) == "string" and ("%q"):format(value) or json.encode(value, { canonical = true })
  text = errors.excerpt(text)
  return #text > 80 and text:sub(1, 77) .. "..." or text
end

local function by_text(a, b)
  return tostring(a) < tostring(b)
end

local function keys_of(a, b)
  local keys, seen = {}, {}
  for _, source in ipairs { a, b } do
    for key in pairs(source) do
      if not seen[key] then keys[#keys + 1], seen[key] = key, true end
    end
  end
  table.sort(keys, by_text)
  return keys
end

-- The path to the first part in which two decoded values differ, and the two parts.
local function difference(a, b, path)
  if type(a) ~= "table" or type(b) ~= "table" or json.is_array(a) ~= json.is_array(b) then
    if a == b and math.type(a) == math.type(b) then return nil end
    return path, a, b
  end
  for _, key in ipairs(keys_of(a, b)) do
    local inner = type(key) == "number" and ("%s[%d]"):format(path, key) or path .. "." .. key
    local where, one, other = difference(a[key], b[key], inner)
    if where then return where, one, other end
  end
end

local function common_prefix(a, b)
  local length = math.min(#a, #b)
  for index = 1, length do
    if a:byte(index) ~= b:byte(index) then return index - 1 end
  end
  return length
end

-- Of all entries the one that `text_of` gives the longest common beginning with.
local function nearest(entries, wanted, text_of)
  local best, found = -1, nil
  for _, entry in ipairs(entries) do
    local common = common_prefix(text_of(entry), wanted)
    if common > best then best, found = common, entry end
  end
  return found, best
end

local function body_difference(entry, text, value)
  local line = entry.record.line or 0
  if value and entry.value then
    local path, recorded, here = difference(entry.value, value, "body")
    local form = "with this body: %s is %s in line %d, and %s here"
    return form:format(path, shown(recorded), line, shown(here))
  end
  local at = common_prefix(entry.text, text)
  return ("with this body: it differs from that of line %d after %d bytes"):format(line, at)
end

local function text_of_entry(entry)
  return entry.text
end

local function place_of_entry(entry)
  return entry.place
end

-- What to say where nothing matches.
local function explain(self, place, text, value)
  local there = {}
  for _, entry in ipairs(self._entries) do
    if entry.place == place then there[#there + 1] = entry end
  end
  if #there > 0 then
    local entry = nearest(there, text, text_of_entry)
    return ("no recording of %s %s"):format(place, body_difference(entry, text, value))
  end
  local entry = nearest(self._entries, place, place_of_entry)
  if not entry then return ("no recording of %s: the cassette is empty"):format(place) end
  local line = entry.record.line or 0
  return ("no recording of %s: the nearest is %s in line %d"):format(place, entry.place, line)
end

local function used_up(place, text, queue)
  local lines = {}
  for index, record in ipairs(queue) do lines[index] = tostring(record.line) end
  return ("every recording of %s%s is used up: line %s"):format(
    place, text ~= "" and " with this body" or "", table.concat(lines, ", "))
end

---The next recording of the request, each only once.
---@param request { method: string, url: string, body: string? } without its secrets, as the records are
---@return sluice.cassette.Record? record
---@return string? reason why there is none
function methods:find(request)
  local place = request.method .. " " .. request.url
  local text, value = canonical(request.body, self._ignored)
  local queue = self._queues[place .. "\n" .. text]
  if not queue then return nil, explain(self, place, text, value) end
  local record = queue[queue.next]
  if not record then return nil, used_up(place, text, queue) end
  queue.next = queue.next + 1
  return record
end

return matcher
