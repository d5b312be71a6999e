-- SPDX-License-Identifier: MIT
-- Bodies of several parts (multipart/form-data, RFC 7578): texts, files, and parts that come piece by piece.

local options = require "sluice.options"
local secret = require "sluice.secret"
local system = require "sluice.core.system"
local url = require "sluice.url"

local multipart = {}

---@class sluice.Part
---@field name string?  in an array of parts
---@field body string|fun(): string?, table? the bytes, or a function that gives the next piece, nil at the end, nil and err to give up; it may wait
---@field filename string?
---@field content_type string? of a part with a filename "application/octet-stream"

local PART = { name = "string?", body = "string|callable", filename = "string?", content_type = "string?" }

-- What browsers write for bytes that would end the quotes or the line.
local ESCAPES = { ['"'] = "%22", ["\r"] = "%0D", ["\n"] = "%0A", ["\0"] = "%00" }

local function quoted(text)
  return '"' .. text:gsub('["\r\n%z]', ESCAPES) .. '"'
end

local function is_part(value)
  return type(value) == "table" and not secret.is(value) and value.body ~= nil
end

local function check_part(where, name, part)
  options.check(where, part, PART)
  if type(name) ~= "string" then options.misuse("%s: a part has no name", where) end
  if part.content_type and part.content_type:find "%c" then
    options.misuse("%s: the content_type of %q holds a control byte", where, name)
  end
  return { name = name, body = part.body, filename = part.filename, content_type = part.content_type }
end

local function add_named(parts, where, name, value)
  if is_part(value) then
    parts[#parts + 1] = check_part(where, name, value)
    return
  end
  for _, field in ipairs(url.list(where, { { name, value } })) do
    parts[#parts + 1] = { name = field[1], body = field[2] }
  end
end

-- In order: an array keeps its own, a map is sorted by name.
local function list_parts(where, given)
  local parts = {}
  if type(given[1]) == "table" then
    for _, part in ipairs(given) do parts[#parts + 1] = check_part(where, part.name, part) end
    return parts
  end
  local names = {}
  for name in pairs(given) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do add_named(parts, where, name, given[name]) end
  return parts
end

local function head_of(part, boundary)
  local lines = { "--" .. boundary, "Content-Disposition: form-data; name=" .. quoted(part.name) }
  if part.filename then lines[2] = lines[2] .. "; filename=" .. quoted(part.filename) end
  local kind = part.content_type or part.filename and "application/octet-stream"
  if kind then lines[3] = "Content-Type: " .. kind end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- An array of strings and iterators, joined where they are strings.
local function pieces_of(parts, boundary)
  local pieces, text = {}, {}
  local function flush()
    if #text > 0 then pieces[#pieces + 1] = table.concat(text) end
    text = {}
  end
  for _, part in ipairs(parts) do
    text[#text + 1] = head_of(part, boundary)
    if type(part.body) == "string" then
      text[#text + 1] = part.body
    else
      flush()
      pieces[#pieces + 1] = part.body
    end
    text[#text + 1] = "\r\n"
  end
  text[#text + 1] = "--" .. boundary .. "--\r\n"
  flush()
  return pieces
end

local function iterate(pieces)
  local at = 1
  return function()
    while pieces[at] do
      local piece = pieces[at]
      if type(piece) == "string" then
        at = at + 1
        return piece
      end
      local more, err = piece()
      if more or err ~= nil then return more, err end
      at = at + 1
    end
    return nil
  end
end

local function random_boundary()
  return "sluice-" .. system.random(16):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
end

---Makes the body and its content type. Never waits; raises for what is no part.
---@param given table<string, string|number|boolean|sluice.Secret|sluice.Part|table>|sluice.Part[] a map (sorted by name; an array of texts repeats the name), or an array where the order counts
---@param boundary? string a random one
---@return string|fun(): string?, table? body a string where all of it is there
---@return string content_type
function multipart.encode(given, boundary)
  boundary = boundary or random_boundary()
  local pieces = pieces_of(list_parts("multipart", given), boundary)
  local body = pieces[1]
  if #pieces > 1 or type(body) ~= "string" then body = iterate(pieces) end
  return body, "multipart/form-data; boundary=" .. boundary
end

return multipart
