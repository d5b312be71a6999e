-- SPDX-License-Identifier: MIT
-- Fields to a line of JSON: whatever they hold, without secrets, and no longer than a line may be.

local core = require "sluice.core.task"
local errors = require "sluice.errors"
local json = require "sluice.core.json"
local memo = require "sluice.memo"
local secret = require "sluice.secret"
local utc = require("sluice.core.system").utc

local encode_json, encode_flat, wall, mask_json = json.encode, json.members, core.wall, secret.mask_json

local line = {}

-- Nested deeper than this, a value is cut: a line is for reading and for a collector with limits.
local MAX_DEPTH <const> = 6
-- Bytes of the fields of a line: what common collectors take. Texts are cut to what is left of it.
local MAX_LINE <const>, MAX_TEXT <const> = 65536, 4096
-- Values in a line that is too long as it is.
local MAX_ITEMS <const> = 500

-- Names whose values are never shown, whoever put them there: those that a cassette hides.
local is_hidden = memo.new(function(name)
  return require("sluice.transports.redact").new():is_secret_name(name)
end)

local PLAIN = { string = true, number = true, boolean = true }

-- A secret that the cut would halve is masked before it.
local function cut_text(text)
  local kept = secret.mask(text):sub(1, MAX_TEXT)
  kept = kept:gsub("[\xC2-\xF4][\x80-\xBF]*$", function(last) return utf8.len(last) and last or "" end)
  return ("%s... (%d bytes)"):format(kept, #text)
end

local clean

local function clean_table(value, depth, cut)
  if depth >= MAX_DEPTH then return "..." end
  local copy = {}
  for key, item in pairs(value) do
    if cut then
      cut.items = cut.items + 1
      if cut.items > MAX_ITEMS then return copy end
    end
    if type(key) == "string" and is_hidden[key] then
      copy[key] = "***"
    elseif type(key) == "string" or math.type(key) == "integer" then
      copy[key] = clean(item, depth + 1, cut)
    end
  end
  return copy
end

local function text_of(value)
  local ok, text = pcall(tostring, value)
  return ok and text or "?"
end

local function clean_other(value, kind)
  local metatable = getmetatable(value)
  if kind ~= "table" or secret.is(value) or (type(metatable) == "table" and metatable.__tostring) then
    return text_of(value)
  end
  return nil
end

-- A copy that JSON can hold; with `cut`, one that a line can hold. Live secrets that stand in texts are masked in
-- the whole line, later.
function clean(value, depth, cut)
  local kind = type(value)
  if errors.is(value) then
    value = errors.to_table(value)
  elseif not PLAIN[kind] then
    local text = clean_other(value, kind)
    if not text then return clean_table(value, depth, cut) end
    value = text
  end
  if not cut or not (type(value) == "table" or type(value) == "string") then return value end
  if type(value) == "table" then return clean_table(value, depth, cut) end
  return #value > MAX_TEXT and cut_text(value) or value
end

local function encode(value)
  local ok, text = pcall(encode_json, value)
  if ok and text then return text end
  -- bytes that are no UTF-8, a NaN, a table with mixed keys: shown as Lua would
  local printable = secret.mask(text_of(value)):gsub("[^\32-\126]", "?")
  ok, text = pcall(encode_json, printable)
  return ok and text or '"?"'
end

local is_shown = memo.new(function(name) return type(name) == "string" and not is_hidden[name] end)
local encoded_event = memo.new(function(event) return encode(text_of(event)) end)

local function sorted_names(fields)
  local names = {}
  for name in pairs(fields) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- The members of the line, each by itself: one that JSON cannot hold, or that is too long, must not take the
-- others along.
local function encode_each(cleaned)
  local parts, left = {}, MAX_LINE
  for _, name in ipairs(sorted_names(cleaned)) do
    local part = encode(#name > MAX_TEXT and cut_text(name) or name) .. ":" .. encode(cleaned[name])
    if #part > left then
      parts[#parts + 1] = '"cut":true'
      break
    end
    parts[#parts + 1], left = part, left - #part
  end
  return table.concat(parts, ",")
end

local SORTED <const> = { canonical = true }

local function encode_fields(fields)
  local text = encode_flat(fields, is_shown)
  if text then return text end
  local ok, whole = pcall(encode_json, clean_table(fields, 0), SORTED)
  if not ok or whole:byte() ~= 0x7B then return encode_each(clean_table(fields, 0, { items = 0 })) end
  if #whole <= MAX_LINE then return whole:sub(2, -2) end
  return encode_each(clean_table(fields, 0, { items = 0 }))
end

-- The members of fields that many lines have, kept as long as the table is.
local kept = setmetatable({}, { __mode = "k" })

local function members_of_kept(fields)
  local text = kept[fields]
  if not text then
    text = encode_fields(fields)
    kept[fields] = text
  end
  return text
end

---Both tables in one; what `more` has goes before.
---@param base table?
---@param more table?
---@return table
function line.merged(base, more)
  local all = {}
  for name, value in next, base or {} do all[name] = value end
  for name, value in next, more or {} do all[name] = value end
  return all
end

local function share_a_name(base, fields)
  for name in next, base do
    if fields[name] ~= nil then return true end
  end
  return false
end

-- `base`: a table that is never changed, of which the same will come again.
local function members_of(fields, base)
  if not base then return fields and encode_fields(fields) or "" end
  if not fields then return members_of_kept(base) end
  if share_a_name(base, fields) then return encode_fields(line.merged(base, fields)) end
  local own, shared = encode_fields(fields), members_of_kept(base)
  if own == "" or shared == "" then return own .. shared end
  return own .. "," .. shared
end

-- Where a scheme may begin, before its "://".
local LONGEST_SCHEME <const> = 20

local function hide_in_urls(text, at)
  local parts, from = {}, 1
  while at do
    local begin = text:sub(math.max(from, at - LONGEST_SCHEME), at - 1):match "()%a[%w+.-]*$"
    begin = begin and math.max(from, at - LONGEST_SCHEME) + begin - 1 or at
    local stop = text:find('[%s"\\]', at) or #text + 1
    local found = text:sub(begin, stop - 1)
    if found:find "[?@]" then
      parts[#parts + 1] = text:sub(from, begin - 1)
      parts[#parts + 1] = require("sluice.transports.redact").new():url(found)
      from = stop
    end
    at = text:find("://", stop, true)
  end
  parts[#parts + 1] = text:sub(from)
  return table.concat(parts)
end

---A line without live secrets, and with its URLs without user, password and the secrets of their queries.
---@param text string with texts as JSON writes them
---@return string
function line.masked(text)
  local at = text:find("://", 1, true)
  return mask_json(at and hide_in_urls(text, at) or text)
end

---A line of JSON with its newline.
---@param level string
---@param event any
---@param fields table?
---@param base table? more fields, in a table that never changes; those of `fields` go before
---@return string
function line.json(level, event, fields, base)
  local members = members_of(fields, base)
  -- one text, not pieces of it: most of what a line costs is making texts
  local text = '{"time":"' .. utc(wall()) .. '","level":"' .. level .. '","event":' .. encoded_event[event]
    .. (members == "" and "" or ",") .. members .. "}\n"
  local at = text:find("://", 1, true)
  return mask_json(at and hide_in_urls(text, at) or text)
end

---Whether a field of this name may be shown.
---@param name any
---@return boolean
function line.is_shown(name) return is_shown[name] end

---A value as JSON that stands in a line, cut where it is too long for one.
---@param value any
---@return string
function line.value(value)
  local text = encode(clean({ value }, 0, { items = 0 })[1])
  return #text <= MAX_LINE and text or encode(cut_text(text))
end

return line
