-- SPDX-License-Identifier: MIT
-- Tool calls and structured output: which tool a chat calls, and JSON made from a schema and the words of the question.
--
-- With `tool_choice` "auto" the tool is called whose name or description shares a word with the last user message; after
-- a tool's result the model speaks.

local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local tools = {}

local shortest_word <const> = 4 -- shorter ones ("the", "get") are in every description
local deepest <const> = 8 -- of a schema

local function words_of(text)
  local words = {}
  for word in tostring(text):lower():gmatch("%a+") do
    if #word >= shortest_word then words[word] = true end
  end
  return words
end

local function shared(a, b)
  local count = 0
  for word in pairs(a) do
    if b[word] then count = count + 1 end
  end
  return count
end

local function functions_of(list)
  local found = {}
  for _, tool in ipairs(wire.is_list(list) and list or {}) do
    local declared = wire.is_object(tool) and wire.given(tool["function"])
    if wire.is_object(declared) and type(declared.name) == "string" then found[#found + 1] = declared end
  end
  return found
end

local function best(functions, question)
  local asked, chosen, most = words_of(question), nil, 0
  for _, declared in ipairs(functions) do
    local text = declared.name:gsub("_", " ") .. " " .. tostring(wire.given(declared.description) or "")
    local count = shared(asked, words_of(text))
    if count > most then chosen, most = declared, count end
  end
  return chosen
end

local function chosen_tool(body, functions, question)
  local choice = wire.given(body.tool_choice) or "auto"
  if choice == "none" then return nil end
  if wire.is_object(choice) then
    local name = wire.is_object(choice["function"]) and choice["function"].name
    for _, declared in ipairs(functions) do
      if declared.name == name then return declared end
    end
    return nil
  end
  local messages = body.messages
  if choice == "required" then return best(functions, question) or functions[1] end
  if messages[#messages].role ~= "user" then return nil end
  return best(functions, question)
end

-- The word of the question that most looks like what is asked for: the last name in it, else its last word.
local function topic(question)
  local name
  for word in question:gmatch("%f[%a]%u[%w'-]+") do name = word end
  local begins = name and question:find("^%s*" .. name:gsub("%p", "%%%0"))
  if begins and not question:find("%u", #name + 1) then name = nil end
  return name or question:match("([%w'-]+)%W*$") or "river"
end

local fill

local makers = {}

function makers.string(_, question) return topic(question) end

function makers.number(_, question) return tonumber(question:match("%-?%d+%.?%d*")) or 1 end

function makers.integer(_, question) return math.tointeger(tonumber(question:match("%-?%d+"))) or 1 end

function makers.boolean() return true end

function makers.null() return json.null end

function makers.array(schema, question, depth) return json.array { fill(schema.items, question, depth) } end

function makers.object(schema, question, depth)
  local made, properties = {}, schema.properties
  for name, inner in pairs(wire.is_object(properties) and properties or {}) do
    made[name] = fill(inner, question, depth)
  end
  return made
end

-- A value that a schema allows, where it uses types, properties, items, enum, const and anyOf.
function fill(schema, question, depth)
  if not wire.is_object(schema) or depth > deepest then return json.null end
  if schema.const ~= nil then return schema.const end
  if wire.is_list(schema.enum) then return schema.enum[1] end
  if wire.is_list(schema.anyOf) then return fill(schema.anyOf[1], question, depth + 1) end
  local kind = schema.type
  if wire.is_list(kind) then kind = kind[1] end
  if kind == nil and schema.properties then kind = "object" end
  return (makers[kind] or makers.string)(schema, question, depth + 1)
end

---The tool calls that a chat request is answered with.
---@param body table the decoded request
---@param question string the last user message
---@return table[]|nil calls nil where the answer is a text
function tools.calls(body, question)
  local functions = functions_of(wire.given(body.tools))
  if #functions == 0 then return nil end
  local declared = chosen_tool(body, functions, question)
  if not declared then return nil end
  local schema = wire.given(declared.parameters) or { type = "object" }
  local arguments = json.encode(fill(schema, question, 0), { canonical = true })
  local call = { name = declared.name, arguments = arguments }
  return { { id = "call_" .. wire.uuid(), type = "function", ["function"] = call } }
end

---The text of an answer that is asked to be JSON by `response_format`.
---@param body table the decoded request
---@param question string the last user message
---@return string|nil text nil where no format is asked for
function tools.structured(body, question)
  local format = wire.given(body.response_format)
  if not wire.is_object(format) then return nil end
  if format.type == "json_object" then return json.encode { answer = question } end
  if format.type ~= "json_schema" or not wire.is_object(format.json_schema) then return nil end
  return json.encode(fill(format.json_schema.schema, question, 0), { canonical = true })
end

return tools
