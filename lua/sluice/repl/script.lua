-- SPDX-License-Identifier: MIT
-- A session as a script that does and prints the same: what `:save` writes.

local globals = require "sluice.repl.globals"
local knowledge = require "sluice.repl.knowledge"

local script = {}

local BINDS <const> = { ["for"] = true, ["local"] = true, ["function"] = true }

-- Which past results a text uses: the numbers behind the underscore, "" for `_`. A `_` that it makes for itself is none.
local function results_used(text)
  local used, tokens, binds = {}, knowledge.code(text), false
  for at, token in ipairs(tokens) do
    if token.kind == "keyword" then binds = BINDS[token.text] or false end
    if token.text == "=" or token.text == ")" then binds = false end
    local is_name = token.kind == "name" and not knowledge.is_field(tokens, at)
    local number = is_name and token.text:match "^_([1-9]?)$"
    if number and binds then return {} end
    if number then used[number] = true end
  end
  return used
end

local function as_comment(text)
  return "-- " .. text:gsub("\n", "\n-- ")
end

-- An expression without the comment at its end, which would take the bracket with it.
local function bare(text)
  local tokens = knowledge.code(text)
  local last = tokens[#tokens]
  return last and text:sub(1, last.last) or text
end

local PLAY <const> = "for text in %s:text() do io.write(text) io.flush() end\nprint()"

-- What prints the values of an expression; as `_`, where a later entry wants it so.
local function printed(entry, is_wanted)
  local text, shown = bare(entry.text), entry.shown
  if shown == "stream" then
    if not is_wanted then return PLAY:format("assert(" .. text .. ")") end
    return ("_ = assert(%s)\n%s\n_ = assert(_:collect())"):format(text, PLAY:format "_")
  end
  if shown == "object" then text = "assert(" .. text .. ")" end
  local template = shown == "object" and "print(show(%s))" or "print(%s)"
  if is_wanted then return ("_ = %s\n%s"):format(text, template:format "_") end
  return template:format(text)
end

local function statement_of(entry, is_wanted)
  if entry.kind ~= "expression" then return entry.text end
  if entry.shown == "nothing" then return entry.text end
  return printed(entry, is_wanted)
end

-- The entries that a script can have, and those whose result it has to keep: what uses an older result than the last, or
-- the result of one that is left out, is left out itself.
local function choose(entries)
  local kept, wanted = {}, {}
  for _, entry in ipairs(entries) do
    local used = results_used(entry.text)
    local uses_last = used[""] or used["1"]
    used[""], used["1"] = nil, nil
    local is_whole = next(used) == nil and entry.shown ~= "failure"
    kept[entry] = is_whole and (not uses_last or entry.last ~= nil and kept[entry.last] or false)
    if kept[entry] and uses_last then wanted[entry.last] = true end
  end
  return kept, wanted
end

local function header(session, entries, kept)
  local lines = { "-- Saved from a session of sluice.", 'local sluice = require "sluice"' }
  local names, seen, needs_show = {}, {}, false
  for _, entry in ipairs(entries) do
    needs_show = needs_show or kept[entry] and entry.kind == "expression" and entry.shown == "object"
    for _, name in ipairs(kept[entry] and globals.lent(session.scope, entry.text) or {}) do
      if not seen[name] then names[#names + 1] = name end
      seen[name] = true
    end
  end
  if #names > 0 then
    local fields = "sluice." .. table.concat(names, ", sluice.")
    lines[#lines + 1] = ("local %s = %s"):format(table.concat(names, ", "), fields)
  end
  if needs_show then lines[#lines + 1] = 'local show = require("sluice.repl.show").value' end
  return lines
end

---The entries that did not fail as a script. What is no part of it for another reason is a comment.
---@param session sluice.repl.Session
---@return string
function script.of(session)
  local entries = {}
  for _, entry in ipairs(session.entries) do
    if not entry.failed and entry.ended then entries[#entries + 1] = entry end
  end
  local kept, wanted = choose(entries)
  local lines = header(session, entries, kept)
  lines[#lines + 1] = ""
  for _, entry in ipairs(entries) do
    lines[#lines + 1] = kept[entry] and statement_of(entry, wanted[entry]) or as_comment(entry.text)
  end
  return table.concat(lines, "\n") .. "\n"
end

return script
