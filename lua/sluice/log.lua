-- SPDX-License-Identifier: MIT
-- Log lines: one JSON object a line, to standard error, without secrets.

local core = require "sluice.core.task"
local errors = require "sluice.errors"
local json = require "sluice.core.json"
local memo = require "sluice.memo"
local options = require "sluice.options"
local secret = require "sluice.secret"

local log = {}

local LEVELS = { debug = 1, info = 2, warn = 3, error = 4, off = 5 }

-- Nested deeper than this, a value is cut: a line is for reading and for a collector with limits.
local MAX_DEPTH = 6

-- Names whose values are never shown, whoever put them there.
local HIDDEN = {
  ["authorization"] = true, ["proxy-authorization"] = true, ["x-api-key"] = true, ["api-key"] = true,
  ["api_key"] = true, ["token"] = true, ["access_token"] = true, ["refresh_token"] = true,
  ["id_token"] = true, ["password"] = true, ["secret"] = true, ["client_secret"] = true,
  ["cookie"] = true, ["set-cookie"] = true,
}

local threshold -- a number of LEVELS; read from SLUICE_LOG at the first use

-- The host takes the line; it drops it where it wants none. A progress bar is taken off the screen meanwhile.
local function write_to_host(line)
  local progress = package.loaded["sluice.progress"]
  local resume = progress and progress.suspend()
  core.log(line)
  if resume then resume() end
end

local write = write_to_host

---Sets the least level that is written. The default is SLUICE_LOG, or `info`.
---@param level "debug"|"info"|"warn"|"error"|"off"
function log.set_level(level)
  if not LEVELS[level] then
    local wrong = tostring(level)
    options.misuse('log.set_level: unknown level "%s"%s', wrong, options.hint(wrong, LEVELS))
  end
  threshold = LEVELS[level]
end

---Sends the lines somewhere else than to the host (the binary writes them to standard error); nil brings them back.
---@param writer? fun(line: string) gets a whole line with its newline; must not wait
---@return fun(line: string) previous
function log.set_output(writer)
  options.argument("log.set_output", "writer", writer, "callable?")
  local previous = write
  write = writer or write_to_host
  return previous
end

local function is_enabled(level)
  if not threshold then
    local wanted = require("sluice.settings").get("SLUICE_LOG")
    threshold = LEVELS[wanted] or LEVELS.info
  end
  return LEVELS[level] >= threshold
end

---Whether lines of this level are written: to save the work of collecting fields.
---@param level "debug"|"info"|"warn"|"error"
---@return boolean
function log.is_enabled(level)
  return is_enabled(level)
end

local clean

local function clean_table(value, depth)
  if depth >= MAX_DEPTH then return "..." end
  local copy = {}
  for key, item in pairs(value) do
    if type(key) == "string" and HIDDEN[key:lower()] then
      copy[key] = "***"
    elseif type(key) == "string" or math.type(key) == "integer" then
      copy[key] = clean(item, depth + 1)
    end
  end
  return copy
end

local PLAIN = { string = true, number = true, boolean = true }

-- A copy that JSON can hold. Live secrets that stand in texts are masked in the whole line, later.
function clean(value, depth)
  local kind = type(value)
  if PLAIN[kind] then return value end
  if errors.is(value) then return errors.to_table(value) end
  local metatable = getmetatable(value)
  if kind ~= "table" or secret.is(value) or (type(metatable) == "table" and metatable.__tostring) then
    return tostring(value)
  end
  return clean_table(value, depth)
end

local function encode(value)
  local ok, text = pcall(json.encode, value)
  if ok and text then return text end
  -- bytes that are no UTF-8, a NaN, a table with mixed keys: shown as Lua would
  local printable = secret.mask(tostring(value)):gsub("[^\32-\126]", "?")
  ok, text = pcall(json.encode, printable)
  return ok and text or '"?"'
end

local is_shown = memo.new(function(name) return type(name) == "string" and not HIDDEN[name:lower()] end)
local encoded_event = memo.new(function(event) return encode(tostring(event)) end)

local function shows_all(fields)
  for name in next, fields do
    if not is_shown[name] then return false end
  end
  return true
end

local function sorted_names(fields)
  local names = {}
  for name in pairs(fields) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- The members of the line, each by itself: one that JSON cannot hold must not take the others along.
local function encode_each(cleaned)
  local parts = {}
  for _, name in ipairs(sorted_names(cleaned)) do
    parts[#parts + 1] = encode(name) .. ":" .. encode(cleaned[name])
  end
  return table.concat(parts, ",")
end

-- Most lines have texts and numbers alone: a table in them is too deep.
local SORTED <const> = { canonical = true }
local FLAT <const> = { canonical = true, max_depth = 1 }

-- The members and the bracket after them.
local function encode_fields(fields)
  if shows_all(fields) then
    local ok, text = pcall(json.encode, fields, FLAT)
    if ok then return text:sub(2) end
  end
  local cleaned = clean_table(fields, 0)
  local ok, text = pcall(json.encode, cleaned, SORTED)
  if ok and text:byte() == 0x7B then return text:sub(2) end
  return encode_each(cleaned) .. "}"
end

local utc = require("sluice.core.system").utc

local function line_of(level, event, fields)
  local now = utc(core.wall())
  local head = '{"time":"' .. now .. '","level":"' .. level .. '","event":' .. encoded_event[event]
  local members = fields and encode_fields(fields) or "}"
  return secret.mask_json(head .. (members == "}" and "" or ",") .. members .. "\n")
end

local function emit(level, event, fields)
  if is_enabled(level) then write(line_of(level, event, fields)) end
end

---Writes a line of level debug. Does not wait.
---@param event string what happened, a fixed text: what varies goes into the fields
---@param fields? table an err is shown as its parts, a secret as `***`
function log.debug(event, fields) emit("debug", event, fields) end

---Writes a line of level info. Does not wait.
---@param event string see log.debug
---@param fields? table
function log.info(event, fields) emit("info", event, fields) end

---Writes a line of level warn. Does not wait.
---@param event string see log.debug
---@param fields? table
function log.warn(event, fields) emit("warn", event, fields) end

---Writes a line of level error. Does not wait.
---@param event string see log.debug
---@param fields? table
function log.error(event, fields) emit("error", event, fields) end

local function merged(base, more)
  local all = {}
  for name, value in pairs(base) do all[name] = value end
  for name, value in pairs(more or {}) do all[name] = value end
  return all
end

---A logger whose every line has these fields.
---@param fields table
---@return { debug: fun(event: string, fields?: table), info: fun(event: string, fields?: table), warn: fun(event: string, fields?: table), error: fun(event: string, fields?: table) }
function log.with(fields)
  options.argument("log.with", "fields", fields, "table")
  local kept, logger = merged(fields), {}
  for _, level in ipairs { "debug", "info", "warn", "error" } do
    logger[level] = function(event, more)
      if is_enabled(level) then emit(level, event, merged(kept, more)) end
    end
  end
  return logger
end

return setmetatable(log, { __index = options.strict("sluice.log", log) })
