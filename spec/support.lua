-- SPDX-License-Identifier: MIT
-- What specs share: the binary under test, child processes, temporary files.

local support = {}

---Whether a stock Lua runs this, with the rock: there is no program, and specs about it are pending.
support.is_rock = package.preload["sluice.core.task"] == nil

local lowest = 0
while arg[lowest - 1] do lowest = lowest - 1 end

---The binary that runs this spec, or what stands in for it; and the folder that it was built into.
if support.is_rock then
  support.binary = "spec/stock_lua.lua"
  support.build = package.searchpath("sluice", package.cpath):match "^(.*)/lib/lua/" or "."
else
  support.binary = arg[lowest]
  support.build = support.binary:match "^(.*)/" or "."
end

---Runs f with the path of a new temporary file and removes it afterwards.
function support.with_file(content, f)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
  local results = table.pack(pcall(f, path))
  os.remove(path)
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

function support.read_file(path)
  local file = assert(io.open(path, "rb"))
  local content = file:read "a"
  file:close()
  return content
end

function support.write_file(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end

---The lines of a file, decoded.
function support.json_lines(path)
  local rows = {}
  for line in io.lines(path) do rows[#rows + 1] = assert(require("sluice.json").decode(line)) end
  return rows
end

---Quotes a word for sh.
function support.quote(word)
  return "'" .. tostring(word):gsub("'", [['\'']]) .. "'"
end

---Runs a shell command to its end, holding up the loop: not for children that talk to this process.
---@return { out: string, err: string, status: integer }
function support.shell(command)
  return support.with_file("", function(out_path)
    return support.with_file("", function(err_path)
      local full = ("{ %s; } >%s 2>%s"):format(command, out_path, err_path)
      local _, _, status = os.execute(full)
      return { out = support.read_file(out_path), err = support.read_file(err_path), status = status }
    end)
  end)
end

---Runs the binary under test with these words.
function support.sluice(...)
  local words = table.pack(...)
  for index = 1, words.n do words[index] = support.quote(words[index]) end
  return support.shell(support.quote(support.binary) .. " " .. table.concat(words, " ") .. " </dev/null")
end

---Whether this build has a module that `make WITHOUT=` can leave out: "server".
function support.has(module)
  return (pcall(require, "sluice.core." .. module))
end

---busted's describe, for specs of what needs such a module: without it they are pending, with the reason.
function support.needing(module, describe, pending)
  if support.has(module) then return describe end
  return function(name)
    pending(("%s: this build has no %s"):format(name, module), function() end)
  end
end

---busted's describe or it, for specs of the program and what it brings: with the rock they are pending.
function support.about_program(describe, pending)
  if not support.is_rock then return describe end
  return function(name)
    pending(name .. ": about the program `sluice`, not the rock", function() end)
  end
end

---Whether a process runs. One that has ended may stay as a zombie for as long as its parent likes.
function support.lives(pid)
  local file <close> = io.open(("/proc/%d/stat"):format(pid))
  local state = file and file:read("a"):match "%) (%a)"
  return state ~= nil and state ~= "Z"
end

---The descriptors that this process holds, as a count.
function support.descriptors()
  local listing = assert(io.popen "ls /proc/$PPID/fd | wc -l")
  local count = tonumber(listing:read "a")
  listing:close()
  return count
end

return support
