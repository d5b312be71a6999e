-- SPDX-License-Identifier: MIT
-- Every block of code in the README and the docs says what language it is, and works as it stands: Lua runs
-- (spec/docs/page.lua), C compiles, the words of commands are there, and those of the README run.

local emulator = require "sluice.emulator"
local process = require "sluice.core.process"
local redis_server = require "redis_server"
local socket = require "sluice.core.socket"
local support = require "support"

local describe = support.needing("server", describe, pending)
local it_of_program = support.about_program(it, pending)
local MANY <const> = 1 << 20

local function output_of(...)
  return assert(process.run({ ... }, MANY, MANY))
end

local ROOT <const> = output_of("pwd").out:match "%C+"
local BINARY <const> = output_of("realpath", support.binary).out:match "%C+"

local function pages()
  local found = {}
  for path in output_of("find", "README.md", "docs", "-name", "*.md").out:gmatch "%C+" do
    if not path:find "docs/reference/" then found[#found + 1] = path end
  end
  table.sort(found)
  return found
end

-- The blocks of a page: { language =, line =, text = }.
local function blocks_of(path)
  local blocks, line, open = {}, 0, nil
  for row in io.lines(path) do
    line = line + 1
    local language = row:match "^```(.*)$"
    if open and language then
      open.text = table.concat(open, "\n")
      blocks[#blocks + 1], open = open, nil
    elseif open then
      open[#open + 1] = row
    elseif language then
      open = { language = language, line = line }
    end
  end
  assert(not open, path .. ": a block without an end")
  return blocks
end

local LANGUAGES <const> = {
  lua = true, c = true, sh = true, json = true, ini = true,
  text = true, console = true, -- what a program prints, and a session at a prompt
}

-- A folder with the files that pages name; f runs with its path.
local FILES <const> = {
  ["questions.jsonl"] = '{"messages":[{"role":"user","content":"What is a sluice?"}]}\n',
  ["prompts/system.txt"] = "Be brief.\n", ["model.json"] = "{}\n",
  [".databrickscfg"] = "[dev]\nhost = HOST\ntoken = any\n",
  ["bin/databricks"] = "#!/bin/sh\necho any\n",
}

local function with_folder(host, f)
  local folder = output_of("mktemp", "-d").out:match "%C+"
  local remove <close> = setmetatable({}, { __close = function() output_of("rm", "-rf", folder) end }) -- luacheck: ignore
  output_of("mkdir", folder .. "/prompts", folder .. "/bin")
  for name, text in pairs(FILES) do
    local file <close> = assert(io.open(folder .. "/" .. name, "w"))
    file:write((text:gsub("HOST", host)))
  end
  output_of("chmod", "+x", folder .. "/bin/databricks")
  return f(folder)
end

local function with_emulator(f)
  local emulated = emulator.new { deploy_time = 0.05, clients = { docs = "a-secret-of-the-docs" } }
  local server <close> = assert(emulated:listen "127.0.0.1:0")
  return f("http://" .. server.address)
end

describe("the docs", function()
  it("say of each block what language it is", function()
    for _, path in ipairs(pages()) do
      for _, block in ipairs(blocks_of(path)) do
        assert(LANGUAGES[block.language], ("%s:%d: a block of %q"):format(path, block.line, block.language))
      end
      local prose = ("\n" .. support.read_file(path)):gsub("\n```.-\n```", "")
      assert.is_nil(prose:match "\n\n    [^%s*-][^\n]*[={;(]", path .. ": an indented block")
    end
  end)

  local function each_block(language, f)
    for _, path in ipairs(pages()) do
      for _, block in ipairs(blocks_of(path)) do
        if block.language == language then f(block.text, ("%s:%d"):format(path, block.line)) end
      end
    end
  end

  -- Functions of a game that the page does not show.
  local BEFORE_C <const> = [[
#include "sluice.h"
#include <stdio.h>
#include <string.h>
void draw_a_frame(void);
void start_a_dialog(void *user, sluice_call call, const char *arguments);
void on_ask_cancelled(void *user, sluice_call call);
]]
  local AROUND_C <const> = "void around(sluice *s, sluice_call call, void *game);\n"
    .. "void around(sluice *s, sluice_call call, void *game)\n{\n(void)s; (void)call; (void)game;\n%s\n}\n"

  it("have C that compiles", function()
    each_block("c", function(text, where)
      local whole, rest = text:match "^(.*\n}\n)(.*)$"
      if text:find "int main" then whole, rest = text, "" end
      local source = BEFORE_C .. (whole or "") .. AROUND_C:format(whole and rest or text)
      support.with_file(source, function(path)
        local compiler = os.getenv "SLUICE_CC" or "cc"
        local result = output_of(compiler, "-std=c11", "-fsyntax-only", "-Wall", "-Wno-unused", "-Iruntime",
          "-x", "c", path)
        assert(result.status == 0, where .. "\n" .. result.err)
      end)
    end)
  end)

  -- The scripts and targets that a command names, and the options that it gives them.
  local function check_command(line, where)
    local target = line:match "^make (%a[%w-]*)"
    local makefile = support.read_file "Makefile"
    if target then assert(makefile:find("\n" .. target .. ":", 1, true), where .. ": " .. line) end
    local script = line:match "sluice .-([%w_/]+%.lua)"
    local file = script and (io.open(script) or io.open("scripts/" .. script))
    if not script or script:find "^%a+%.lua$" and not file then return end -- one of the reader's
    assert(file, ("%s: there is no %s"):format(where, script))
    local text = file:read "a"
    file:close()
    for option in line:sub(line:find(script, 1, true), -1):gmatch " (%-%-%a[%w-]*)" do
      assert(text:find(option:sub(3), 1, true), ("%s: %s takes no %s"):format(where, script, option))
    end
  end

  it("name scripts, targets and options that there are", function()
    each_block("sh", function(text, where)
      for line in text:gsub("\\\n", " "):gmatch "[^\n]+" do check_command(line:gsub("%s#.*", ""), where) end
    end)
  end)

  -- A port that was free a moment ago.
  local function free_port()
    local listener <close> = assert(socket.listen("127.0.0.1", 0))
    return listener.port
  end

  it_of_program("start with commands that do what they say", function()
    local lua, commands = {}, nil
    for _, block in ipairs(blocks_of "README.md") do
      if block.language == "lua" then lua[#lua + 1] = block.text end
      if block.text:find("emulate --listen", 1, true) then commands = block.text end
    end
    local emulated, served = free_port(), free_port()
    commands = commands:gsub("8100", emulated):gsub("8080", served)
    commands = commands:gsub("&\n", ">/dev/null & left=\"$left $!\"\nsleep 1\n") .. "\nkill $left\n"
    with_folder("http://127.0.0.1:1", function(folder)
      for name, text in pairs { ["script.lua"] = lua[1], ["serve.lua"] = lua[3]:gsub("8080", served) } do
        local file <close> = assert(io.open(folder .. "/" .. name, "w"))
        file:write(text)
      end
      output_of("ln", "-s", BINARY:match "^(.*)/", folder .. "/build")
      local result = output_of("env", "-C", folder, "HOME=" .. folder, "timeout", "40", "sh", "-ec", commands)
      assert(result.status == 0, result.out .. result.err)
      assert.matches("^1\t%u.*\ndata: {.*\ndata: %[DONE%]\n", result.out)
    end)
  end)

  local function run_page(path, redis_url)
    return with_emulator(function(host)
      return with_folder(host, function(folder)
        return output_of("env", "-C", folder, "HOME=" .. folder, "PATH=" .. folder .. "/bin:/usr/bin:/bin",
          "DATABRICKS_HOST=" .. host, "DATABRICKS_TOKEN=any", "DATABRICKS_WAREHOUSE_ID=any", "SLUICE_LOG=off",
          BINARY, ROOT .. "/spec/docs/page.lua", ROOT .. "/" .. path, redis_url)
      end)
    end)
  end

  for _, path in ipairs(pages()) do
    if support.read_file(path):find "\n```lua\n" then
      it(path .. " has Lua that runs", function()
        local needs_redis = support.read_file(path):find "redis"
        if needs_redis and not support.has "redis" then return pending "this build has no Redis" end
        local server <close> = needs_redis and redis_server.start() or nil -- luacheck: ignore
        local result = run_page(path, server and server.url or nil)
        assert(result.status == 0, result.out .. result.err)
        assert.matches("ok\t%d", result.out)
      end)
    end
  end
end)
