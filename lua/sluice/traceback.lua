-- SPDX-License-Identifier: MIT
-- Tracebacks for those who wrote the script: without what of the library stands above it and below it.

local traceback = {}

-- Frames that belong to whoever called them: C functions and tail calls.
local function is_between(line)
  return line:find "^%s*%[C%]:" ~= nil or line:find("(...tail calls...)", 1, true) ~= nil
end

local function is_ours(line)
  return line:find "^%s*lua/sluice/" ~= nil
end

-- How many of the first lines are the library's.
local function count_ours(lines)
  local count = 0
  for index, line in ipairs(lines) do
    if is_ours(line) then count = index elseif not is_between(line) then break end
  end
  return count
end

---A text with its traceback. A misuse is told at the line that called the library, so how the library found out helps
---nobody; where the text names a file of the library, the fault is there, and all of it is shown.
---@param text string what was raised
---@param trace string what debug.traceback gave inside of the handler of xpcall
---@return string text
function traceback.tidy(text, trace)
  trace = trace:gsub("\n%s*%[C%]: in function 'xpcall'.*$", ""):gsub("\n%s*%[C%]: in function 'error'", "")
    :gsub("\n%s*%[C%]: in function 'assert'", ""):gsub("^.-stack traceback:\n?", "")
  local lines = {}
  for line in trace:gmatch "[^\n]+" do lines[#lines + 1] = line end
  local from = is_ours(text) and 1 or count_ours(lines) + 1
  if not lines[from] then return text end
  return text .. "\nstack traceback:\n" .. table.concat(lines, "\n", from)
end

return traceback
