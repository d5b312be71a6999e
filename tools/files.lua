-- SPDX-License-Identifier: MIT
-- What the tools share: finding files, reading them, reporting what is wrong.

local files = {}

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

---The files below a folder whose names end in one of the suffixes, sorted; paths start with `folder`.
---@param folder string
---@param ... string suffixes, such as ".lua"
---@return string[]
function files.find(folder, ...)
  local suffixes, found = { ... }, {}
  local pipe <close> = assert(io.popen("find " .. quote(folder) .. " -type f 2>/dev/null"))
  for path in pipe:lines() do
    for _, suffix in ipairs(suffixes) do
      if path:sub(-#suffix) == suffix then
        found[#found + 1] = path:gsub("^%./", "")
        break
      end
    end
  end
  table.sort(found)
  return found
end

---The whole file; nil and a message where it cannot be read.
---@param path string
---@return string? text
---@return string? message
function files.read(path)
  local file <close>, message = io.open(path, "rb")
  if not file then return nil, message end
  return file:read("a")
end

---The lines of a text, without their ends.
---@param text string
---@return string[]
function files.lines(text)
  local lines = {}
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do lines[#lines + 1] = line end
  if lines[#lines] == "" then lines[#lines] = nil end
  return lines
end

---A list of complaints that becomes the tool's output and exit status.
---@return { add: fun(self: table, path: string, line: integer?, format: string, ...: any), finish: fun(self: table) }
function files.report()
  local report = { count = 0 }
  function report.add(self, path, line, format, ...)
    self.count = self.count + 1
    io.stderr:write(path, line and ":" .. line or "", ": ", format:format(...), "\n")
  end
  function report.finish(self)
    os.exit(self.count == 0 and 0 or 1)
  end
  return report
end

return files
