-- SPDX-License-Identifier: MIT
-- Completion and help: what the annotations and living values say of names.

local support = require "support"
local describe = support.about_program(describe, pending)
local complete = require "sluice.repl.complete"
local help = require "sluice.repl.help"
local knowledge = require "sluice.repl.knowledge"
local repl_console = require "repl_console"
local sluice = require "sluice"

local workspace = assert(sluice.workspace { host = "http://127.0.0.1:1", token = "x" })
local env = setmetatable({
  sluice = sluice, task = sluice.task, layers = sluice.layers, w = workspace, chat = workspace:endpoint "a",
  text = "abc", record = { first = 1, second = { third = 3 }, _hidden = 1, call = function() end },
}, { __index = _G })

local function candidates(text)
  return table.concat(complete.at(text, env).candidates, " ")
end

describe("completion", function()
  for text, expected in pairs {
    ["whi"] = "while",
    ["rec"] = "record",
    ["record."] = "call first second",
    ["record._"] = "_hidden",
    ["record.second.th"] = "third",
    ["record['second'].th"] = "third",
    ["record:"] = "call",
    ["task.sp"] = "spawn",
    ["sluice.ta"] = "task",
    ["sluice.task.sc"] = "scope",
    ["x = 1 + task.sp"] = "spawn",
    ["text:up"] = "upper",
    ["('a'):up"] = "upper",
    ["w:"] = "close describe endpoint is_emulator",
    ["w."] = "host serving_endpoints serving_endpoints_data_plane sql",
    ["w.serving_endpoints:get_o"] = "get_open_api get_or_create",
    ["w:endpoint('b'):"] = "available_in query serving_state stream",
    ["chat:stream({ messages = {} }):c"] = "chunks close collect",
    ["require 'sluice.task'.sc"] = "scope",
    ["sluice.http.client{}:req"] = "request",
    ["sluice.workspace { to"] = "token =  token_command =  token_file = ",
    ["layers.retry { attempts = 3, bu"] = "budget = ",
    ["task.map(list, f, { "] = "concurrency =  stop_on_error = ",
    ["chat:query({}, { ti"] = "timeout = ",
    ["w.serving_endpoints:create { config = { served_entities = { { entity_n"] = "entity_name = ",
    ["chat:query({}, { timeout = { que"] = "queue = ",
    ["chat:query { messages = { { role = 'user', con"] = "content = ",
    ["sluice.http.client { max_w"] = "max_waiting = ",
    ["progress.ba"] = "bar",
    ["transp"] = "transports",
    ["require 'sluice.tas"] = "sluice.task",
    ["require('sluice.tas"] = "sluice.task",
    ["'sluice.tas"] = "",
    ["-- tas"] = "",
    ["nothing.to"] = "",
    ["3"] = "",
    [""] = "",
  } do
    it("of " .. text, function() assert.equal(expected, candidates(text)) end)
  end

  it("says what it replaces, and what all candidates share", function()
    assert.equal(6, complete.at("task.sp", env).from)
    assert.equal("get_o", complete.common { "get_open_api", "get_or_create" })
    assert.equal("", complete.common {})
  end)

  it("calls no metamethod", function()
    local function fail() error "called" end
    local trap = setmetatable({}, { __index = fail, __call = fail, __pairs = fail })
    env.trap = trap
    assert.equal("", candidates "trap.a")
    assert.equal("", candidates "trap.a.b")
    assert.equal("", candidates "trap():")
  end)

  it("is inserted, or listed above the line", function()
    local function edits(...) return repl_console.run({ ... }, { env = env }).edits end
    local function tab(text) return { event = "complete", text = text } end
    assert.same({ { delete = 2, insert = "spawn" } }, edits(tab "task.sp"))
    assert.same({ { delete = 0, insert = "", above = "get_open_api   get_or_create" } },
      edits(tab "w.serving_endpoints:get_o"))
    assert.same({ { delete = 0, insert = "  " } }, edits(tab " "))
    assert.same({ { delete = 1, insert = "help " } }, edits(tab ":h"))
    assert.same({ { delete = 2, insert = "spawn" } }, edits(tab "?task.sp"))
    assert.same({ { delete = 0, insert = "" } }, edits(tab "nothing.a"))
    assert.same({ { delete = 2, insert = "spawn" } }, edits("for i = 1, 2 do", tab "task.sp"))
  end)
end)

describe("help", function()
  local function about(text) return help.about(text, env) end

  it("tells the signature, the text and the place of a function", function()
    local text = about "task.spawn"
    assert.matches("sluice.task.spawn(f: function, ...: any): sluice.Task\n  Starts `f(...)`", text, 1, true)
    assert.matches("lua/sluice/task.lua:%d+$", text)
  end)

  it("tells it of methods and of classes, by living values and by name", function()
    local signature = "^sluice.Endpoint:stream%(request: sluice.Request, options%?: sluice.Query"
    assert.matches(signature, about "chat:stream")
    assert.matches("^sluice.Workspace\n", about "w")
    assert.matches("\n  endpoint ", about "w")
    assert.matches("^sluice.Stream:text%(%)", about "Stream:text")
    assert.matches("^sluice.Error\n", about "sluice.Error")
    assert.matches("\n  is ", about "sluice.Error")
    assert.matches("^sluice.Layer: fun", about "sluice.Layer")
    assert.matches("\n  lua/sluice/layers.lua:%d+$", about "chat:query")
  end)

  it("lists the options of a call, and the parts of a module", function()
    assert.matches("\n  attempts%? +integer", about "layers.retry")
    assert.matches("\n  breaker ", about "layers")
    assert.matches("\n  max_per_host%? +integer", about "http.client")
    assert.matches("\nrequest %(sluice.Request%):\n", about "chat:query")
    assert.matches("\n  timeout%? +number|sluice.Timeout  seconds\n", about "chat:query")
    assert.matches("\n  returns  err: sluice.Error%?  kind ", about "json.decode")
  end)

  it("goes on below where a text begins, in lines of the given width", function()
    local text = help.about("http.client", env, 60)
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 60, line) end
    local margin = (" "):rep(20)
    local folded = "\n  max_waiting%?      integer  how many may wait; those beyond\n" .. margin .. "it fail"
    assert.matches(folded, text)
    assert.equal((about("http.client"):gsub("%s+", " ")), (text:gsub("%s+", " ")))
    for line in help.about("task.map", env, 40):gmatch "[^\n]+" do assert.is_true(#line < 60, line) end
  end)

  it("finds what is a part of something", function()
    assert.matches("^sluice.ServingEndpoints:create_and_wait%(body: ", about "create_and_wait")
    assert.matches("^there are\n", about "collect")
    assert.matches("\n  sluice.Stream:collect%f[%s\0]", about "collect")
  end)

  it("says what it does not know, and what is near", function()
    assert.equal("nothing is known of tas.spawn, is it task.spawn?", about "tas.spawn")
    assert.matches("^tostring: part of Lua, see https://.*#pdf%-tostring$", about "tostring")
    assert.equal("record: table, nothing is written about it", about "record")
    assert.matches("^nothing is known of ", about "%%")
  end)

  it("is asked for with a question mark", function()
    assert.matches("^sluice.task.spawn", repl_console.run({ "?task.spawn" }, { env = env }).out)
    assert.matches("_1 .. _9", repl_console.run({ "?" }, { env = env }).out, 1, true)
  end)
end)

describe("what is known", function()
  it("holds every module, class and metatable", function()
    local reference = knowledge.reference()
    for name in pairs(package.loaded) do
      local is_ours = name:find "^sluice%.?" and not name:find "^sluice%.core" and not name:find "reference$"
      if is_ours then assert.is_table(reference.modules[name], name) end
    end
    assert.is_table(reference.classes["sluice.Stream"].members.text)
    assert.equal("sluice.Workspace", reference.metatables["sluice.workspace"])
  end)

  it("finds the class of a value and of a type", function()
    assert.equal("sluice.Workspace", knowledge.class_of(workspace))
    assert.is_nil(knowledge.class_of {})
    assert.equal("sluice.Stream", (knowledge.subject_of "sluice.Stream?"))
    assert.is_nil(knowledge.subject_of "sluice.Stream[]")
    assert.matches("^fun", knowledge.resolve "sluice.ServingAnswer")
  end)

  it("knows the modules that are for everybody", function()
    assert.is_true(knowledge.is_public "task")
    assert.is_false(knowledge.is_public "options")
    assert.is_false(knowledge.is_public "workspace")
    assert.is_true(#knowledge.public_names() > 20)
  end)

  it("tells the parameters of functions, by their comments and by their types", function()
    local function names(member)
      local found = {}
      for index, param in ipairs(knowledge.parameters(member)) do
        found[index] = param.name .. (param.optional and "?" or "") .. ": " .. param.type
      end
      return table.concat(found, "; ")
    end
    assert.equal("", names { type = "integer" })
    local written = { { name = "self", type = "any" }, { name = "a", type = "integer" } }
    assert.equal("a: integer", names { params = written })
    local inside = "a: { b: integer, c: fun(d: any, e: any) }, f?: (fun(g: any, h: any): integer)|string"
    assert.equal(inside:gsub(", f%?", "; f?") .. "; ...: any",
      names { type = "fun(self: any, " .. inside .. ", ...: any): table" })
  end)

  it("tells fields from names", function()
    local tokens = knowledge.code "a.b:c(d)"
    assert.same({ false, true, true, false },
      { knowledge.is_field(tokens, 1), knowledge.is_field(tokens, 3), knowledge.is_field(tokens, 5),
        knowledge.is_field(tokens, 7) })
  end)

  it("finds members, their kinds and their results", function()
    local member = knowledge.member("sluice.Workspace", "endpoint")
    assert.is_true(knowledge.is_function(member))
    assert.equal("sluice.endpoints.Databricks", knowledge.result_type(member))
    assert.is_table(knowledge.members("sluice.endpoints.OpenAI").host) -- of its parent
    assert.same({ "sluice.task", "spawn" }, { select(2, knowledge.of_function(sluice.task.spawn)) })
  end)

  it("reads fields without running anything", function()
    local object = setmetatable({ a = 1 }, { __index = setmetatable({ b = 2 }, { __index = error }) })
    assert.same({ 1, 2 }, { knowledge.field(object, "a"), knowledge.field(object, "b") })
    assert.is_nil(knowledge.field(object, "c"))
    assert.same({ a = 1, b = 2 }, knowledge.fields(object))
    local tokens = knowledge.code "w:endpoint('x') -- y"
    local place = knowledge.place_at(tokens, #tokens, env)
    assert.equal("sluice.endpoints.Databricks", place.class)
    assert.same(place, knowledge.call(knowledge.step({ class = "sluice.Workspace" }, "endpoint", ":")))
  end)
end)
