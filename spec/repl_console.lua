-- SPDX-License-Identifier: MIT
-- A console for specs of the REPL: what is typed comes from a list, what is shown is kept.

local repl = require "sluice.repl"

local repl_console = {}

---Runs a session over these inputs: lines, events, or functions that are called where they stand and may give one.
---@return { out: string, err: string, failures: integer, env: table, remembered: string[], edits: table[] }
function repl_console.run(inputs, given)
  given = given or {}
  local at, seen = 0, { out = "", err = "", remembered = {}, edits = {}, prompts = {} }
  local env = given.env or setmetatable({}, { __index = _G })
  seen.env = env
  env.print = function(...)
    local words = table.pack(...)
    for index = 1, words.n do words[index] = tostring(words[index]) end
    seen.out = seen.out .. table.concat(words, "\t") .. "\n"
  end
  local console = {
    read_line = function(prompt)
      seen.prompts[#seen.prompts + 1] = prompt
      while true do
        at = at + 1
        local input = inputs[at]
        if type(input) == "function" then input = input(seen) end
        if type(input) == "table" then return input end
        if type(input) == "string" then return { event = "line", text = input } end
        if at > #inputs then return { event = "end" } end
      end
    end,
    write = function(text) seen.out = seen.out .. text end,
    write_error = function(text) seen.err = seen.err .. text end,
    edit = function(change) seen.edits[#seen.edits + 1] = change end,
    remember = function(text) seen.remembered[#seen.remembered + 1] = text end,
    wait_interrupt = given.wait_interrupt,
    is_interactive = given.is_interactive or false,
    columns = given.columns,
    unicode = given.unicode,
  }
  seen.failures = repl.run(console, { env = env, banner = given.banner })
  return seen
end

return repl_console
