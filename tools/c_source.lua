-- SPDX-License-Identifier: MIT
-- Reads C source as far as the lint tools need it: comments and strings blanked, functions found by their braces.

local c_source = {}

local function blank(text)
  return (text:gsub("[^\n]", " "))
end

-- Where the comment, string or character literal that starts at `at` ends; nil when none starts there.
local function literal_end(text, at)
  local two = text:sub(at, at + 1)
  if two == "/*" then return select(2, text:find("*/", at + 2, true)) or #text, "comment" end
  if two == "//" then return (text:find("\n", at, true) or #text + 1) - 1, "comment" end
  local quote = two:sub(1, 1)
  if quote ~= '"' and quote ~= "'" then return nil end
  local stop = at + 1
  while stop <= #text and text:sub(stop, stop) ~= quote do
    stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
  end
  return stop, "string"
end

---The text with comments blanked, and the insides of strings too unless `keep_strings`; same length, same lines.
---@param text string
---@param keep_strings boolean?
---@return string
function c_source.strip(text, keep_strings)
  local out, at = {}, 1
  while true do
    local start = text:find("[/\"']", at)
    if not start then break end
    out[#out + 1] = text:sub(at, start - 1)
    local stop, kind = literal_end(text, start)
    local piece = text:sub(start, stop or start)
    if kind == "comment" then
      piece = blank(piece)
    elseif kind == "string" and not keep_strings then
      piece = piece:sub(1, 1) .. blank(piece:sub(2, -2)) .. piece:sub(-1)
    end
    out[#out + 1] = piece
    at = (stop or start) + 1
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out)
end

---The text without preprocessor directives, which are blanked with their continuation lines.
---@param stripped string
---@return string
function c_source.without_directives(stripped)
  local lines, continued = {}, false
  for line in (stripped .. "\n"):gmatch("(.-)\n") do
    local directive = continued or line:find("^%s*#")
    continued = directive and line:sub(-1) == "\\"
    lines[#lines + 1] = directive and "" or line
  end
  return table.concat(lines, "\n")
end

local function line_counter(text)
  local at, line = 1, 1
  return function(position)
    while true do
      local newline = text:find("\n", at, true)
      if not newline or newline >= position then return line end
      at, line = newline + 1, line + 1
    end
  end
end

---The pieces of a file between the braces of depth 0: declarations, and functions with their bodies.
---@param text string the whole file
---@return { head: string, body: string?, name: string?, first: integer, last: integer }[] pieces `name` and `body` for functions; lines count from 1
function c_source.pieces(text)
  local code = c_source.without_directives(c_source.strip(text))
  code = code:gsub('extern%s*"[ ]*"%s*{', blank)
  local line_of, pieces = line_counter(code), {}
  local depth, start, open = 0, 1, nil
  for at, mark in code:gmatch("()([{};])") do
    if mark == "{" then
      if depth == 0 then open = at end
      depth = depth + 1
    elseif mark == "}" then
      depth = math.max(depth - 1, 0)
    end
    local head = code:sub(start, (open or at) - 1)
    local is_function = open and head:find("%)%s*$")
    if depth == 0 and (mark == ";" or (mark == "}" and is_function)) then
      local first = line_of(start + #head:match("^%s*"))
      pieces[#pieces + 1] = {
        head = head,
        name = is_function and head:gsub("__attribute__%s*%b()", ""):match("([%w_]+)%s*%(") or nil,
        body = open and code:sub(open, at) or nil,
        first = first,
        last = line_of(at),
      }
      start, open = at + 1, nil
    elseif depth == 0 and mark == "}" and not open then
      start = at + 1
    end
  end
  return pieces
end

---The headers that a file includes.
---@param text string the whole file
---@return { name: string, system: boolean, line: integer }[]
function c_source.includes(text)
  local includes, number = {}, 0
  for line in (c_source.strip(text, true) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local open, name = line:match('^%s*#%s*include%s*([<"])([^>"]+)')
    if name then includes[#includes + 1] = { name = name, system = open == "<", line = number } end
  end
  return includes
end

---The string literals of a file, as they are written.
---@param text string the whole file
---@return { value: string, line: integer, source: string }[] literals `source` is the whole line
function c_source.strings(text)
  local literals, number = {}, 0
  for line in (c_source.strip(text, true) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    if not line:find("^%s*#%s*include") then
      for value in line:gmatch('"([^"]*)"') do
        literals[#literals + 1] = { value = value, line = number, source = line }
      end
    end
  end
  return literals
end

return c_source
