-- SPDX-License-Identifier: MIT
-- ai_query: a column whose cells are the answers of an endpoint to the prompts that SQLite has worked out.

local client = require "sluice.endpoints.client"
local failure = require "sluice.emulator.sql.failure"
local json = require "sluice.json"
local task = require "sluice.task"
local types = require "sluice.emulator.sql.types"
local values = require "sluice.emulator.sql.values"
local wire = require "sluice.emulator.wire"

local ai_query = {}

---A call of ai_query: its SQL is that of the prompt.
---@class sluice.emulator.sql.AiQuery: sluice.emulator.sql.Value
---@field endpoint string
---@field parameters table<string, any> more keys of the request
---@field is_strict boolean whether an error fails the statement

local CONCURRENCY <const> = 16 -- requests of a statement at a time

-- ---- reading a call ----

local function constant(scope, node)
  if node.kind == "literal" then return node.value end
  if node.kind == "parameter" then return values.of(scope, node).value end
  local is_negative = node.kind == "negative" and node.value.kind == "literal"
  if is_negative and type(node.value.value) == "number" then return -node.value.value end
  return failure.unsupported(node.at, "An argument of ai_query that is no literal")
end

local function model_parameters(scope, node)
  if node.kind ~= "call" or node.name ~= "named_struct" or #node.arguments % 2 == 1 then
    failure.unsupported(node.at, "modelParameters that are no named_struct(name, value, ...)")
  end
  local made = {}
  for index = 1, #node.arguments, 2 do
    local name = constant(scope, node.arguments[index])
    if type(name) ~= "string" then types.mismatch(node.at, "The names of a named_struct are strings.") end
    made[name] = constant(scope, node.arguments[index + 1])
  end
  return made
end

local readers = {
  failonerror = function(made, scope, node)
    local value = constant(scope, node)
    if type(value) ~= "boolean" then types.mismatch(node.at, "failOnError must be true or false.") end
    made.is_strict = value
  end,
  modelparameters = function(made, scope, node) made.parameters = model_parameters(scope, node) end,
}

---Translates a call of ai_query; nil for any other node. Raises a failure.
---@param scope sluice.emulator.sql.Scope
---@param node sluice.emulator.sql.Node
---@return sluice.emulator.sql.AiQuery?
function ai_query.translate(scope, node)
  if node.kind ~= "call" or node.name ~= "ai_query" then return nil end
  if #node.arguments ~= 2 then
    failure.raise("WRONG_NUM_ARGS", node.at,
      "ai_query needs an endpoint and a request; what else it takes is given by name.")
  end
  local endpoint = constant(scope, node.arguments[1])
  if type(endpoint) ~= "string" then
    types.mismatch(node.at, "The endpoint of ai_query is a literal string.")
  end
  local prompt = values.of(scope, node.arguments[2])
  if prompt.type ~= "STRING" and prompt.type ~= "VOID" then
    types.mismatch(node.at, "The request of ai_query is a STRING, not a %s.", prompt.type)
  end
  local made = { sql = prompt.sql, endpoint = endpoint, parameters = {}, is_strict = true }
  for _, each in ipairs(node.named) do
    local read = readers[each.name]
    if not read then failure.unsupported(each.at, ("The argument %s of ai_query"):format(each.name)) end
    read(made, scope, each.value)
  end
  made.type = made.is_strict and "STRING" or "STRUCT"
  return made
end

-- ---- asking ----

local function text_of_blocks(blocks)
  local parts = {}
  for _, block in ipairs(blocks) do
    if type(block) == "table" and type(block.text) == "string" then parts[#parts + 1] = block.text end
  end
  return table.concat(parts)
end

local function text_of_answer(body)
  local first = wire.is_list(body.choices) and body.choices[1]
  if type(first) == "table" then
    local message = wire.given(first.message)
    local content = wire.given(type(message) == "table" and message.content or first.text)
    if type(content) == "table" then return text_of_blocks(content) end
    return type(content) == "string" and content or ""
  end
  return json.encode(wire.given(body.predictions) or body)
end

local function error_text(status, body)
  local code = type(body) == "table" and wire.given(body.error_code)
  local message = type(body) == "table" and wire.given(body.message) or "no message"
  return ("%s: %s"):format(tostring(code or ("HTTP_%d"):format(status)), tostring(message))
end

-- The answer to one prompt; nil and the text of the error.
local function ask(emulator, authorization, call, prompt)
  local request = { messages = json.array { { role = "user", content = prompt } } }
  for name, value in pairs(call.parameters) do request[name] = value end
  local res, err = emulator.app:handle {
    method = "POST", path = ("/serving-endpoints/%s/invocations"):format(client.escape(call.endpoint)),
    headers = { authorization = authorization, ["content-type"] = "application/json" },
    body = json.encode(request),
  }
  if not res then return nil, "INTERNAL_ERROR: " .. tostring(err.message) end
  local body = json.decode(res.body)
  if res.status ~= 200 or type(body) ~= "table" then return nil, error_text(res.status, body) end
  return text_of_answer(body)
end

local function cell_of(emulator, authorization, call, prompt)
  if prompt == nil then return nil end
  local text, problem = ask(emulator, authorization, call, prompt)
  if call.is_strict then
    if text then return text end
    failure.raise("AI_FUNCTION_HTTP_REQUEST_ERROR", nil, "ai_query of `%s`: %s", call.endpoint, problem)
  end
  return json.encode({ result = text or json.null, errorMessage = problem or json.null },
    { canonical = true })
end

---Puts the answers where the prompts are, in rows of SQLite's values. Raises a failure where an endpoint does and the
---call says so. Waits.
---@param emulator table
---@param authorization any of the caller
---@param calls table<integer, sluice.emulator.sql.AiQuery> by the place of the column
---@param rows any[][]
function ai_query.answer(emulator, authorization, calls, rows)
  task.map(rows, function(row)
    for index, call in pairs(calls) do
      row[index] = cell_of(emulator, authorization, call, row[index])
    end
  end, { concurrency = CONCURRENCY, stop_on_error = true })
end

return ai_query
