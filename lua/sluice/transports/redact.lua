-- SPDX-License-Identifier: MIT
-- Takes secrets out of what is to be written to a file: by the names of fields, by known forms, by their bytes.

local base64 = require "sluice.base64"
local secret = require "sluice.secret"
local url = require "sluice.url"

local redact = {}

---@class sluice.Redactor
local methods = {}
local metatable = { __name = "sluice.transports.redact", __index = methods }

local STARS <const> = "***"

-- A shorter value is hidden where it stands, and not looked for elsewhere: that would turn prose into stars.
local SEARCH_AT_LEAST = 8

-- What the last word of a name says, and the last two.
local LAST = {}
for _, word in ipairs {
  "token", "password", "passwd", "secret", "credential", "credentials", "apikey", "plaintext", "passphrase",
  "authorization", "assertion", "cookie", "cookies", "signature", "jwt",
} do LAST[word] = true end
local LAST_TWO = {}
for _, words in ipairs {
  "api key", "access key", "private key", "secret key", "account key", "subscription key", "token value",
} do LAST_TWO[words] = true end

-- "clientSecret", "X-Api-Key" and "api_key" in words of small letters.
local function words_of(name)
  local words = {}
  local spaced = name:gsub("(%l)(%u)", "%1 %2"):gsub("%[.*$", ""):lower()
  for word in spaced:gmatch "%w+" do words[#words + 1] = word end
  return words
end

---Whether a field, a header or a part of a query by this name holds a secret.
---@param name string
---@return boolean
function methods:is_secret_name(name)
  local known = self._names[name:lower()]
  if known == nil then
    local words = words_of(name)
    local last, before = words[#words], words[#words - 1]
    known = last ~= nil and (LAST[last] or before ~= nil and LAST_TWO[before .. " " .. last]) or false
    self._names[name:lower()] = known
  end
  return known
end

-- The end of a JSON string that begins at `from`; its quotes are written with so many backslashes.
local function string_end(text, from, escapes)
  local at = from
  while true do
    local quote = text:find('"', at, true)
    if not quote then return #text + 1 end
    local count, before = 0, quote - 1
    while before >= from and text:byte(before) == 92 do count, before = count + 1, before - 1 end
    if count == escapes or (escapes == 0 and count % 2 == 0) then return quote - escapes end
    at = quote + 1
  end
end

-- A token of a model's vocabulary is none: { "token": " the", "logprob": -0.1, "bytes": [...] }.
local function is_vocabulary(text, after)
  return text:find('^\\*"%s*,%s*\\*"logprob\\*"', after) or text:find('^\\*"%s*,%s*\\*"bytes\\*"', after)
end

-- Fields of JSON, in whatever stands around it: an event stream, a text within JSON.
local function json_ranges(self, text, add)
  for name, escapes, from in text:gmatch '"([%w_.%-]+)\\*"%s*:%s*(\\*)"()' do
    if self:is_secret_name(name) then
      local stop = string_end(text, from, #escapes)
      if stop > from and not is_vocabulary(text, stop) then add(from, stop - 1) end
    end
  end
end

-- name=value&name=value, of forms and of queries.
local function form_ranges(self, text, add)
  for at, field, stop in text:gmatch "()([^&?#%s]+)()" do
    local name, value = field:match "^([^=]*)=()."
    if name and self:is_secret_name(url.decode(name)) then add(at + value - 1, stop - 1) end
  end
end

local function part_ranges(self, text, add)
  for name, at in text:gmatch 'name="([^"]*)"()' do
    local _, blank = text:find("\r\n\r\n", at, true)
    local stop = blank and text:find("\r\n--", blank, true)
    if not stop then return end
    if stop > blank + 1 and self:is_secret_name(name) then add(blank + 1, stop - 1) end
  end
end

-- What is a secret by its form alone, and where in it the secret begins.
local FORMS = {
  "[Bb]earer%s+()[%w%-._~+/=]+()",
  "()dapi%x+()",
  "()sk%-[%w_%-]+()",
}
local FORM_AT_LEAST = 20

local function known_forms(text, add)
  for _, form in ipairs(FORMS) do
    for from, stop in text:gmatch(form) do
      if stop - from >= FORM_AT_LEAST then add(from, stop - 1) end
    end
  end
end

local function by_place(a, b)
  return a[1] < b[1]
end

-- In order, and no two that overlap.
local function merged(ranges)
  table.sort(ranges, by_place)
  local list = {}
  for _, range in ipairs(ranges) do
    local last = list[#list]
    if last and range[1] <= last[2] then
      last[2] = math.max(last[2], range[2])
    else
      list[#list + 1] = range
    end
  end
  return list
end

-- Where the secrets of a text are, in order. Those found by a name or a form are looked for from now on.
local function ranges_of(self, text, content_type)
  local found = {}
  local function add(from, to)
    found[#found + 1] = { from, to }
    self:learn(text:sub(from, to))
  end
  json_ranges(self, text, add)
  known_forms(text, add)
  if content_type:find("x-www-form-urlencoded", 1, true) then form_ranges(self, text, add) end
  if content_type:find("multipart/", 1, true) then part_ranges(self, text, add) end
  for hidden in pairs(self._secrets) do
    local from, to = text:find(hidden, 1, true)
    while from do
      found[#found + 1] = { from, to }
      from, to = text:find(hidden, to + 1, true)
    end
  end
  return merged(found)
end

-- The text without the ranges, and where each of them has its end now.
local function replace(text, ranges)
  local out, at, length, moves = {}, 1, 0, {}
  for index, range in ipairs(ranges) do
    local kept = text:sub(at, range[1] - 1)
    out[#out + 1], out[#out + 2] = kept, STARS
    length = length + #kept + #STARS
    moves[index] = { range[1], range[2], length }
    at = range[2] + 1
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out), moves
end

-- Where the end of a piece has moved to; one within a secret goes behind it.
local function moved(moves, stop)
  local shift = 0
  for _, move in ipairs(moves) do
    if stop < move[1] then break end
    if stop <= move[2] then return move[3] end
    shift = move[3] - move[2]
  end
  return stop + shift
end

---Remembers a secret: its bytes are hidden wherever they come up from now on. A header's value is
---taken apart: "Bearer TOKEN", "Basic USER:PASSWORD in base64".
---@param text string
function methods:learn(text)
  local scheme, rest = text:match "^(%a+)%s+(%S+)$"
  local plain = scheme and scheme:lower() == "basic" and base64.decode(rest)
  if plain then self:learn(plain:match "^[^:]*:(.*)$" or plain) end
  if rest then text = rest end
  if #text >= SEARCH_AT_LEAST then self._secrets[text] = true end
end

---The pieces of a text without its secrets; where they were cut stays, as far as a secret lets it.
---@param pieces string[]
---@param content_type? string
---@return string[]
function methods:pieces(pieces, content_type)
  local text = table.concat(pieces)
  local ranges = ranges_of(self, text, content_type or "")
  if #ranges > 0 then
    local hidden, moves = replace(text, ranges)
    local cut, from, stop = {}, 1, 0
    for index, piece in ipairs(pieces) do
      stop = stop + #piece
      local to = index == #pieces and #hidden or moved(moves, stop)
      cut[index] = hidden:sub(from, to)
      from = math.max(from, to + 1)
    end
    text, pieces = hidden, cut
  end
  local final = secret.mask(text)
  if self._rule then final = self._rule(final) end
  if final == text then return pieces end
  local whole = { final } -- where the pieces were cut cannot be told any more
  for index = 2, #pieces do whole[index] = "" end
  return whole
end

---A text without its secrets.
---@param text string
---@param content_type? string
---@return string
function methods:text(text, content_type)
  return self:pieces({ text }, content_type)[1]
end

---A URL without user, password and the secrets of its query.
---@param text string
---@return string
function methods:url(text)
  text = text:gsub("^(%a[%w+.-]*://)([^/?#]*)@", function(scheme, user)
    self:learn(user:match "^[^:]*:(.*)$" or user)
    return scheme .. STARS .. "@"
  end)
  local query = text:find("?", 1, true)
  if not query then return self:text(text) end
  return self:text(text:sub(1, query - 1)) .. self:text(text:sub(query), "x-www-form-urlencoded")
end

---Header fields without their secrets.
---@param list { [1]: string, [2]: any }[]
---@return string[][]
function methods:headers(list)
  local shown = {}
  for index, field in ipairs(list) do
    local name, value = field[1], field[2]
    if secret.is(value) or self:is_secret_name(name) then
      local bytes = secret.reveal(value)
      if type(bytes) == "string" then self:learn(bytes) end
      shown[index] = { name, STARS }
    else
      shown[index] = { name, self:text(tostring(value)) }
    end
  end
  return shown
end

---Makes a redactor.
---@param rule? string[]|fun(text: string): string more names, in any case; or a function that changes each text
---@return sluice.Redactor
function redact.new(rule)
  local names = {}
  if type(rule) == "table" then
    for _, name in ipairs(rule) do names[name:lower()] = true end
  end
  return setmetatable({
    _names = names,
    _rule = type(rule) == "function" and rule or nil,
    _secrets = {},
  }, metatable)
end

return redact
