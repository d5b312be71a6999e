-- SPDX-License-Identifier: MIT
-- Fails on files without the SPDX line, without the comment that says their concern, with a wrong include guard,
-- or too long without a reason.
--
--     lua5.4 tools/lint_files.lua [ROOT]

package.path = (arg[0]:match("^.*/") or "") .. "?.lua"
local files = require "files"

local MAX_LINES <const> = 800
local C_LICENSE <const> = "/* SPDX-License-Identifier: MIT */"
local LUA_LICENSE <const> = "-- SPDX-License-Identifier: MIT"

local root = arg[1] or "."
local report = files.report()

local function first_comment(lines, is_c)
  if is_c then
    local comment = table.concat(lines, "\n", 2):match("^%s*/%*(.-)%*/")
    return comment or ""
  end
  local comment = {}
  for index = 2, #lines do
    if not lines[index]:find("^%-%-") then break end
    comment[#comment + 1] = lines[index]
  end
  return table.concat(comment, "\n")
end

-- A spec says in its first `describe` what it is for.
local function check_head(path, lines, is_c)
  local start = lines[1] and lines[1]:find("^#!") and 2 or 1
  if lines[start] ~= (is_c and C_LICENSE or LUA_LICENSE) then
    report:add(path, start, "the first line must be %s", is_c and C_LICENSE or LUA_LICENSE)
    return
  end
  local comment = first_comment(table.move(lines, start, #lines, 1, {}), is_c)
  if not comment:find("%w") and not path:find("_spec%.lua$") then
    report:add(path, start + 1, "no comment says what the file is for")
  end
  if #lines > MAX_LINES and not comment:find("%f[%w]lines%f[%W]") then
    report:add(path, 1, "%d lines; over %d the first comment says why in one file", #lines, MAX_LINES)
  end
end

-- SL_NAME_H, or with the folder SL_FOLDER_NAME_H; the public header is SLUICE_H.
local function check_guard(path, text)
  local folder, name = path:match("([^/]+)/([^/]+)%.h$")
  local function guard(words) return "SL_" .. words:upper():gsub("[^%w]", "_") .. "_H" end
  local allowed = { guard(name), guard(folder .. "_" .. name) }
  if name == "sluice" then allowed = { "SLUICE_H" } end
  local actual = text:match("#ifndef%s+([%w_]+)")
  for _, wanted in ipairs(allowed) do
    if actual == wanted and text:find("#define%s+" .. wanted .. "%f[^%w_]") then return end
  end
  report:add(path, nil, "the include guard must be %s", table.concat(allowed, " or "))
end

for _, path in ipairs(files.find(root .. "/runtime", ".c", ".h")) do
  local text = assert(files.read(path))
  check_head(path, files.lines(text), true)
  if path:find("%.h$") then check_guard(path, text) end
end
for _, folder in ipairs { "lua", "scripts", "spec", "tools", "runtime" } do
  for _, path in ipairs(files.find(root .. "/" .. folder, ".lua")) do
    check_head(path, files.lines(assert(files.read(path))), false)
  end
end
report:finish()
