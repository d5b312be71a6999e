-- SPDX-License-Identifier: MIT
-- The words of the script that runs, which ends where they are wrong.

local arguments = require "sluice.arguments"

local command = {}

---As arguments.read.
---@param spec sluice.ArgumentsOptions
---@return table<string, any> given
---@return fun(text: string) refuse
function command.read(spec)
  local words = _G.arg or {}
  local name = (words[0] or "script"):match "[^/]*$"
  local function refuse(text)
    io.stderr:write(name, ": ", text, "\n", arguments.usage(spec, name), "\n")
    os.exit(2)
  end
  local given, wrong = arguments.parse(spec, words)
  if wrong == "help" then
    io.stdout:write(arguments.help(spec, name))
    os.exit(0)
  elseif not given then
    refuse(wrong)
  end
  return given, refuse
end

return command
