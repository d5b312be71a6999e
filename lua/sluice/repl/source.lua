-- SPDX-License-Identifier: MIT
-- What is typed, as Lua: its tokens, whether it is whole, and what it becomes so that locals outlive their entry.

local source = {}

local KEYWORDS <const> = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then "
  .. "true until while"):gmatch "%a+" do
  KEYWORDS[word] = true
end

---The reserved words of Lua.
---@type table<string, true>
source.keywords = KEYWORDS

---@class sluice.repl.Token
---@field kind "name"|"keyword"|"number"|"string"|"comment"|"mark"
---@field text string as written
---@field first integer the index of its first byte
---@field last integer the index of its last byte
---@field content? string of a string: what stands between its quotes
---@field unfinished? boolean of a string or comment: its end has not been typed

-- The last byte of a long bracket that opens at `at`, where its content begins, and whether it ends.
local function long_bracket(text, at)
  local level = text:match("^%[(=*)%[", at)
  if not level then return nil end
  local _, stop = text:find("]" .. level .. "]", at, true)
  return stop or #text, at + #level + 2, stop ~= nil
end

local function quoted(text, at)
  local quote, stop = text:sub(at, at), at + 1
  while stop <= #text do
    local byte = text:sub(stop, stop)
    if byte == quote then return stop, true end
    if byte == "\n" then return stop - 1, false end
    stop = stop + (byte == "\\" and 2 or 1)
  end
  return #text, false
end

local MARKS <const> = { "...", "..", "==", "~=", "<=", ">=", "//", "::", "<<", ">>" }

local function mark_at(text, at)
  for _, mark in ipairs(MARKS) do
    if text:sub(at, at + #mark - 1) == mark then return mark end
  end
  return text:sub(at, at)
end

local function read_comment(text, at)
  local stop, _, ended = long_bracket(text, at + 2)
  if stop then return { kind = "comment", last = stop, unfinished = not ended or nil } end
  local line_end = text:find("\n", at, true)
  return { kind = "comment", last = (line_end or #text + 1) - 1, unfinished = not line_end or nil }
end

local function read_token(text, at)
  if text:find("^%-%-", at) then return read_comment(text, at) end
  local stop, inside, ended = long_bracket(text, at)
  if stop then
    return { kind = "string", last = stop, content = text:sub(inside, stop), unfinished = not ended or nil }
  end
  if text:find("^[\"']", at) then
    stop, ended = quoted(text, at)
    local content = text:sub(at + 1, ended and stop - 1 or stop)
    return { kind = "string", last = stop, content = content, unfinished = not ended or nil }
  end
  stop = select(2, text:find("^[%a_][%w_]*", at))
  if stop then return { kind = KEYWORDS[text:sub(at, stop)] and "keyword" or "name", last = stop } end
  stop = select(2, text:find("^%.?%d[%w_.]*", at))
  if stop then return { kind = "number", last = stop } end
  return { kind = "mark", last = at + #mark_at(text, at) - 1 }
end

---The tokens of a text, comments included. Never raises: what is no Lua comes as marks.
---@param text string
---@return sluice.repl.Token[]
function source.tokens(text)
  local tokens, at = {}, 1
  while true do
    at = text:find("%S", at)
    if not at then return tokens end
    local token = read_token(text, at)
    token.first, token.text = at, text:sub(at, token.last)
    tokens[#tokens + 1] = token
    at = token.last + 1
  end
end

-- ---- locals ----

local DEPTH <const> = {
  ["function"] = 1, ["do"] = 1, ["if"] = 1, ["repeat"] = 1, ["end"] = -1, ["until"] = -1,
}

local function is_mark(token, text)
  return token ~= nil and token.kind == "mark" and token.text == text
end

-- The names behind a `local`: the tokens of attributes, and the index of the token behind all. Nil where
-- the entry must keep its local: one that is to be closed.
local function read_names(tokens, at)
  local attributes = {}
  while tokens[at] and tokens[at].kind == "name" do
    if is_mark(tokens[at + 1], "<") then
      if not tokens[at + 3] or tokens[at + 2].text == "close" then return nil end
      table.move(tokens, at + 1, at + 3, #attributes + 1, attributes)
      at = at + 3
    end
    if not is_mark(tokens[at + 1], ",") then return attributes, at + 1 end
    at = at + 2
  end
  return nil
end

-- Cuts of the text: { first, last, replacement }.
local function cut_local(cuts, tokens, at)
  local keyword = tokens[at]
  local cut = { keyword.first, keyword.last, (" "):rep(#keyword.text) }
  if tokens[at + 1] and tokens[at + 1].text == "function" then
    cuts[#cuts + 1] = cut
    return
  end
  local attributes, behind = read_names(tokens, at + 1)
  if not attributes then return end
  cuts[#cuts + 1] = cut
  for _, token in ipairs(attributes) do cuts[#cuts + 1] = { token.first, token.last, "" } end
  if not is_mark(tokens[behind], "=") then
    local last = tokens[behind - 1]
    cuts[#cuts + 1] = { last.last + 1, last.last, " = nil" }
  end
end

---The text with its outermost `local` variables made global, so that the next entry still has them. A `<close>`
---variable stays local. Lines keep their numbers.
---@param text string
---@return string
function source.keep_locals(text)
  local tokens, cuts, depth = {}, {}, 0
  for _, token in ipairs(source.tokens(text)) do
    if token.kind ~= "comment" then tokens[#tokens + 1] = token end
  end
  for at, token in ipairs(tokens) do
    if token.kind == "keyword" then
      depth = depth + (DEPTH[token.text] or 0)
      if token.text == "local" and depth == 0 then cut_local(cuts, tokens, at) end
    end
  end
  local pieces, from = {}, 1
  for _, cut in ipairs(cuts) do
    pieces[#pieces + 1] = text:sub(from, cut[1] - 1) .. cut[3]
    from = cut[2] + 1
  end
  return table.concat(pieces) .. text:sub(from)
end

-- ---- compiling ----

local function wants_more(message)
  return message:find("<eof>'?$") ~= nil
end

-- A quoted string cannot go on in the next line, unless its last byte says so.
local function ends_in_quotes(text)
  local tokens = source.tokens(text)
  local last = tokens[#tokens]
  return last ~= nil and last.kind == "string" and last.unfinished and text:find("^[\"']", last.first)
    and not text:find("\\z?%s*$")
end

---Compiles an entry: an expression, whose values it then returns behind a nil, or statements. The nil is
---there because `return f()` alone is a tail call, of which a traceback knows nothing.
---@param text string
---@param name string what error messages call it
---@param env table
---@return function? chunk
---@return string? message nil where the text is only the beginning of something
---@return "expression"|"statements"|nil kind
function source.compile(text, name, env)
  local chunk, refusal = load("return " .. text, name, "t", env)
  if chunk then
    local whole = load("return nil, " .. text, name, "t", env)
    return whole or chunk, nil, whole and "expression" or "statements" -- a comment alone is no expression
  end
  if ends_in_quotes(text) then text = text .. "\n" end
  local message
  chunk, message = load(source.keep_locals(text), name, "t", env)
  if chunk then return chunk, nil, "statements" end
  if wants_more(message) or wants_more(refusal) and not ends_in_quotes(text) then return nil end
  return nil, message
end

return source
