-- SPDX-License-Identifier: MIT
-- The text of a .databrickscfg: sections of `key = value`.

local config_file = {}

-- No setting is this long; a file of another kind has such lines.
local MAX_LINE <const> = 64 * 1024

local BYTE_ORDER_MARK <const> = "\xEF\xBB\xBF"

-- Keys before the first header are the default profile's.
local DEFAULT <const> = "DEFAULT"

local function fault(line, column, message)
  return nil, { line = line, column = column, message = message }
end

-- Without the blanks around it; in one pass, however many blanks there are.
local function trim(text)
  return text:match "^%s*(.*%S)" or ""
end

-- A `#` begins a comment after a blank only: tokens and passwords may hold one.
local function without_comment(text)
  local at = 0
  repeat
    at = text:find("#", at + 1, true)
  until not at or (at > 1 and text:find("^%s", at - 1))
  return at and text:sub(1, at - 1) or text
end

-- In quotes everything belongs to the value.
local function value_of(text)
  local quote = text:match "^[\"']"
  local stop = quote and text:find(quote, 2, true)
  local is_all = stop and (text:find("^%s*$", stop + 1) or text:find("^%s+#", stop + 1))
  if is_all then return text:sub(2, stop - 1) end
  return trim(without_comment(text))
end

-- The name in `[name]`, or nil and the column and what is wrong there. What stands in the file is never
-- quoted: it may be a secret on the wrong line.
local function header_of(text, indent)
  local name, rest = text:match "^%[([^%]]*)%]%s*(.*)$"
  if not name then return nil, indent + #text, "the name of a profile ends with ]" end
  if rest ~= "" and not rest:find "^[#;]" then
    return nil, indent + #text - #rest + 1, "nothing but a comment may follow the name of a profile"
  end
  name = trim(name)
  if name == "" then return nil, indent + 2, "the name of a profile is empty" end
  return name
end

local function setting_of(text, indent)
  local at = text:find "[=:]"
  if not at then return nil, indent + 1, "a line is [PROFILE], KEY = VALUE or a # comment" end
  local key = trim(text:sub(1, at - 1))
  if key == "" then return nil, indent + at, "a name must stand before the " .. text:sub(at, at) end
  local value = value_of(trim(text:sub(at + 1)))
  return key:lower(), value
end

local function section(sections, name)
  sections[name] = sections[name] or {}
  return sections[name]
end

local function read_line(state, text, number)
  local control = text:find "[%z\1-\8\11-\31\127]"
  if control then return fault(number, control, "a control character") end
  if #text > MAX_LINE then return fault(number, MAX_LINE + 1, "the line is too long") end
  local blanks, rest = text:match "^%s*", trim(text)
  if rest == "" or rest:find "^[#;]" then return true end
  if rest:find "^%[" then
    local name, column, message = header_of(rest, #blanks)
    if not name then return fault(number, column, message) end
    state.current = section(state.sections, name)
    return true
  end
  local key, value, message = setting_of(rest, #blanks)
  if not key then return fault(number, value, message) end
  state.current = state.current or section(state.sections, DEFAULT)
  state.current[key] = value
  return true
end

---The profiles of a file by name, each with its keys (in lower case) and values. Of two equal keys the
---last one wins. Values stand as they are: `token` is no secret yet. Never waits.
---@param text string the bytes of the file; a byte order mark and CRLF are fine
---@return table<string, table<string, string>>? sections
---@return { line: integer, column: integer, message: string }? fault columns count bytes, from 1
function config_file.parse(text)
  if text:sub(1, 3) == BYTE_ORDER_MARK then text = text:sub(4) end
  local state, number = { sections = {} }, 0
  for line in text:gmatch "([^\n]*)\n?" do
    number = number + 1
    local read, wrong = read_line(state, (line:gsub("\r$", "")), number)
    if not read then return nil, wrong end
  end
  return state.sections
end

return config_file
