-- SPDX-License-Identifier: MIT
-- The one source of help, completion, types and pages: tools/reference.lua, types.lua and pages.lua read annotations.

local SAMPLE <const> = [[
-- SPDX-License-Identifier: MIT
-- A sample of a module.
-- It has two lines.

local sample = {}

---@alias sluice.Maker fun(size: integer): sluice.Sample
---@alias sluice.Mode "a"|"b"

---Anything that has a size.
---@class sluice.Sized
---@field size integer in bytes

---A thing.
---@class sluice.Sample: sluice.Sized
---@field name? string what it is called
---@field make sluice.Maker
local methods = {}
local metatable = { __name = "sluice.sample", __index = methods }

---@class sluice.SampleOptions
---@field limit? integer bytes; 5
local OPTIONS = { limit = "integer?" }

---Makes one.
---Waits.
---@param size integer in bytes
---@param given? { mode: sluice.Mode, list: (string|fun(a: integer): string)[] } how
---@param ... string|integer
---@return sluice.Sample? made the thing
---@return sluice.Error? err
---@return integer # more
---@return any ... all else
function sample.new(size, given, ...)
  return setmetatable({ size, given, ..., OPTIONS }, metatable)
end

---Its double.
---@return integer
function methods:double() return self.size * 2 end

---As in C.
---@param a any
sample.from_c = print

---@type table<string, fun(): integer>
sample.table = setmetatable({}, {})

---The most.
sample.MOST = 5

return sample
]]

local root

local function run(command)
  local pipe <close> = assert(io.popen(command .. " 2>&1"))
  return pipe:read "a"
end

local function write(path, text)
  assert(os.execute(("mkdir -p '%s/%s'"):format(root, path:match "^(.*)/")))
  local file <close> = assert(io.open(root .. "/" .. path, "w"))
  file:write(text)
end

local function read(path)
  local file <close> = assert(io.open(root .. "/" .. path))
  return file:read "a"
end

describe("annotations", function()
  before_each(function()
    root = os.tmpname()
    os.remove(root)
    assert(os.execute("mkdir " .. root))
    write("lua/sluice/sample.lua", SAMPLE)
    write("lua/sluice/layer.lua", "-- SPDX-License-Identifier: MIT\n-- A layer.\n\n---Makes one.\n"
      .. "---@param a integer\n---@return integer\nlocal function layer(a)\n  return a\nend\n"
      .. "\nreturn layer\n")
  end)

  after_each(function() os.execute("rm -r " .. root) end)

  it("become data", function()
    assert.equal("", run(("lua5.4 tools/reference.lua %s/out.lua %s/lua"):format(root, root)))
    local reference = dofile(root .. "/out.lua")
    assert.equal("A sample of a module.\nIt has two lines.", reference.modules["sluice.sample"].text)
    local new = reference.modules["sluice.sample"].members.new
    assert.equal("Makes one.\nWaits.", new.text)
    assert.same({
      { name = "size", type = "integer", text = "in bytes" },
      {
        name = "given", type = "{ mode: sluice.Mode, list: (string|fun(a: integer): string)[] }",
        text = "how", optional = true,
      },
      { name = "...", type = "string|integer" },
    }, new.params)
    assert.same({
      { name = "made", type = "sluice.Sample?", text = "the thing" },
      { name = "err", type = "sluice.Error?" }, { type = "integer", text = "more" },
      { name = "...", type = "any", text = "all else" },
    }, new.returns)
    assert.matches("sample.lua:%d+$", new.at)
    local class = reference.classes["sluice.Sample"]
    assert.same({ "sluice.Sized" }, class.parents)
    assert.equal("A thing.", class.text)
    assert.same({ "string", true }, { class.members.name.type, class.members.name.optional })
    assert.is_true(class.members.double.is_method)
    assert.equal("fun(size: integer): sluice.Sample", reference.classes["sluice.Maker"].alias)
    assert.equal("bytes; 5", reference.classes["sluice.SampleOptions"].members.limit.text)
    assert.equal("sluice.Sample", reference.metatables["sluice.sample"])
    assert.equal("integer", reference.modules["sluice.layer"].call.params[1].type)
    assert.equal("table<string, fun(): integer>", reference.modules["sluice.sample"].members.table.type)
    assert.equal("number", reference.modules["sluice.sample"].members.MOST.type)
  end)

  it("become definitions that editors read", function()
    assert.equal("", run(("lua5.4 tools/types.lua %s/types %s/lua"):format(root, root)))
    local text = read "types/sluice/sample.lua"
    assert(load(text))
    for _, piece in ipairs {
      "---@meta sluice.sample\n",
      '---@alias sluice.Mode "a"|"b"\n',
      "---@class sluice.sample\nlocal sample = {}\n",
      "---@field make sluice.Maker\nlocal methods = {}\n",
      "---@field limit? integer bytes; 5\n\n",
      "---@return any ... all else\nfunction sample.new(size, given, ...) end\n",
      "---@return integer\nfunction methods:double() end\n",
      "---@param a any\nfunction sample.from_c(a) end\n",
      "---@type table<string, fun(): integer>\nsample.table = nil\n",
      "---@type number\nsample.MOST = nil\n",
      "\nreturn sample\n",
    } do
      assert.is_truthy(text:find(piece, 1, true), piece .. " in " .. text)
    end
    assert.matches("function layer%(a%) end\n\nreturn layer\n$", read "types/sluice/layer.lua")
  end)

  it("become pages in Markdown", function()
    assert.equal("", run(("lua5.4 tools/pages.lua %s/pages %s/lua"):format(root, root)))
    local text, at = read "pages/sluice.sample.md", 1
    for _, piece in ipairs {
      "# sluice.sample\n\nA sample of a module.\nIt has two lines.\n",
      "## sluice.Maker\n\nStands for `fun(size: integer): `[`sluice.Sample`](sluice.sample.md#sluicesample)",
      "## sluice.Sized\n\nAnything that has a size.\n\n- `size` `integer`: in bytes\n",
      "\n\nHas all of [`sluice.Sized`](sluice.sample.md#sluicesized)\n\n- `name` `string` (optional)",
      "## sluice.SampleOptions\n\n- `limit` `integer` (optional): bytes; 5\n",
      "## `sample.new(size, given?, ...)`\n\nMakes one.\nWaits.\n\n- `size` `integer`: in bytes\n",
      "- returns `made` [`sluice.Sample`](sluice.sample.md#sluicesample)`?`: the thing\n- returns `err` ",
      "- returns `integer`: more\n- returns `...` `any`: all else\n",
      "## `Sample:double()`\n\nIts double.\n\n- returns `integer`\n",
      "## `sample.from_c(a)`\n",
      "## `sample.table`\n\nType: `table<string, fun(): integer>`\n",
      "## `sample.MOST`\n",
    } do
      local first, last = text:find(piece, at, true)
      assert.is_truthy(first, piece .. " in " .. text)
      at = last
    end
    assert.matches("## `layer%(a%)`\n", read "pages/sluice.layer.md")
    local listed = "- [sluice.sample](sluice.sample.md): A sample of a module.\n"
    assert.is_truthy(read("pages/README.md"):find(listed, 1, true))
  end)

  it("of the whole library become a page for each module, with links that lead somewhere", function()
    for _, folder in ipairs { "pages", "again" } do
      assert.equal("", run(("lua5.4 tools/pages.lua %s/%s lua"):format(root, folder)))
    end
    assert.equal("", run(("diff -r %s/pages %s/again"):format(root, root)))
    local index, marks, links = read "pages/README.md", {}, {}
    for path in run("grep -rlE '^ *---@(param|return|field|class)' lua/sluice"):gmatch "[^\n]+" do
      local name = path:match("^lua/(.*)%.lua$"):gsub("/init$", ""):gsub("/", ".")
      local text = read("pages/" .. name .. ".md")
      assert.is_truthy(index:find(("](%s.md)"):format(name), 1, true), name)
      for heading in text:gmatch "\n## ([^\n]+)" do
        marks[name .. ".md#" .. heading:lower():gsub("[^%w_ -]", "")] = true
      end
      for link in text:gmatch "%]%(([^)#]+#[^)]+)%)" do links[link] = name end
    end
    for link, name in pairs(links) do assert.is_true(marks[link], link .. " of " .. name) end
    assert.matches("## `task.spawn%(f, %.%.%.%)`", read "pages/sluice.task.md")
    assert.matches("## `HttpClient:request%(given%)`", read "pages/sluice.http.md")
    local attempts = "%- `attempts` `integer` %(optional%): tries in all[^\n]*; 3\n"
    assert.matches(attempts, read "pages/sluice.retry.md")
  end)

  it("of the whole library can be read", function()
    assert.equal("", run(("lua5.4 tools/types.lua %s/types lua"):format(root)))
    assert.matches("function task.spawn%(f, %.%.%.%) end", read "types/sluice/task.lua")
  end)
end)
