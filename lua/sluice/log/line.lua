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

-- What a copy may hold. A loose one that is full does not fit into a line: then a tight one is made, of which each
-- part is cut.
local function loose() return { fields = 0, items = 0, most = MAX_LINE // 4, text = MAX_LINE } end
local function tight() return { fields = 0, items = 0, most = MAX_ITEMS, text = MAX_TEXT, cuts = true } end

-- What is in a field takes no room from the other fields.
local function has_room(limits, depth)
  local kind = depth == 0 and "fields" or "items"
  limits[kind] = limits[kind] + 1
  if limits[kind] <= limits.most then return true end
  limits.is_full = true
  return false
end

-- What an object gives by its __pairs, which may be anything.
local function entries(object, most)
  local found, count = {}, 0
  for key, item in pairs(object) do
    count = count + 1
    if count > most then break end
    found[key] = item
  end
  return found
end

local clean

local function clean_table(value, depth, limits)
  if depth >= MAX_DEPTH then return "..." end
  if getmetatable(value) ~= nil then
    local ok, found = pcall(entries, value, limits.most + 1)
    if not ok then return "?" end
    value = found
  end
  local copy = {}
  for key, item in next, value do
    if not has_room(limits, depth) then return copy end
    if type(key) == "string" and is_hidden[key] then
      copy[key] = "***"
    elseif type(key) == "string" or math.type(key) == "integer" then
      copy[key] = clean(item, depth + 1, limits)
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

local function clean_text(text, limits)
  if #text <= limits.text then return text end
  if limits.cuts then return cut_text(text) end
  limits.is_full = true
  return text
end

-- A copy that JSON can hold. Live secrets that stand in texts are masked in the whole line, later.
function clean(value, depth, limits)
  local kind = type(value)
  if kind == "string" then return clean_text(value, limits) end
  if PLAIN[kind] then return value end
  if errors.is(value) then return clean_table(errors.to_table(value), depth, limits) end
  local text = clean_other(value, kind)
  if text then return clean_text(text, limits) end
  return clean_table(value, depth, limits)
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

---An event as a text, cut where it is too long for one.
---@param event any
---@return string
function line.event(event)
  local text = text_of(event)
  return #text > MAX_TEXT and cut_text(text) or text
end

local encoded_event = memo.new(function(event) return encode(line.event(event)) end)

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
local function encode_each(fields)
  local limits = tight()
  local cleaned = clean_table(fields, 0, limits)
  local parts, left, is_cut = {}, MAX_LINE, limits.is_full
  for _, name in ipairs(sorted_names(cleaned)) do
    local part = encode(#name > MAX_TEXT and cut_text(name) or name) .. ":" .. encode(cleaned[name])
    is_cut = is_cut or #part > left
    if #part > left then break end
    parts[#parts + 1], left = part, left - #part
  end
  if is_cut then parts[#parts + 1] = '"cut":true' end
  return table.concat(parts, ",")
end

local SORTED <const> = { canonical = true }

-- What each line has by itself: a field of such a name must not stand in for it.
local OWN <const> = { time = "fields.time", level = "fields.level", event = "fields.event" }

local function renamed(fields)
  local copy = {}
  for name, value in next, fields do copy[OWN[name] or name] = value end
  return copy
end

local function has_own(fields)
  return rawget(fields, "level") ~= nil or rawget(fields, "time") ~= nil or rawget(fields, "event") ~= nil
end

local function encode_fields(fields)
  if has_own(fields) then fields = renamed(fields) end
  local text = encode_flat(fields, is_shown)
  if text then return text end
  local limits = loose()
  local copy = clean_table(fields, 0, limits)
  if not limits.is_full then
    local ok, whole = pcall(encode_json, copy, SORTED)
    if ok and whole:byte() == 0x7B and #whole <= MAX_LINE then return whole:sub(2, -2) end
  end
  return encode_each(fields)
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
  local text = encode(clean({ value }, 0, tight())[1])
  return #text <= MAX_LINE and text or encode(cut_text(text))
end

return line
