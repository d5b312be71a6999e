-- SPDX-License-Identifier: MIT
-- What ai_query is asked and what it answers: rows as prompts, a statement for them, cells as rows of a batch's output.

local errors = require "sluice.errors"
local json = require "sluice.json"
local options = require "sluice.options"

local prompts = {}

-- ---- rows ----

local function malformed(number, text, ...)
  return nil, errors.new("MalformedRow", { message = ("row %d " .. text):format(number, ...) })
end

-- What a request may hold beside its prompt; what the model is told besides is told for all rows at once.
local IGNORED <const> = { messages = true, prompt = true, model = true }

local function content_of(message)
  local content = type(message) == "table" and message.content
  return type(content) == "string" and content or nil
end

---The prompt of a request: its `prompt`, or the content of its one message. ai_query takes one text.
---@param number integer of the row
---@param request table
---@return string? prompt
---@return sluice.Error? err kind MalformedRow
function prompts.of_request(number, request)
  for name in pairs(request) do
    if not IGNORED[name] then
      return malformed(number, "has %s, which ai_query takes for all rows only: see model_parameters",
        tostring(name))
    end
  end
  if type(request.prompt) == "string" then return request.prompt end
  local messages = request.messages
  if type(messages) ~= "table" then return malformed(number, "has no prompt and no messages") end
  if #messages ~= 1 or messages[1].role ~= "user" then
    return malformed(number, "has %d messages, and ai_query takes one of the user", #messages)
  end
  local content = content_of(messages[1])
  if not content then return malformed(number, "has a message whose content is no text") end
  return content
end

-- ---- statements ----

local ESCAPES <const> = { ["'"] = "\\'", ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\0"] = "\\0" }

local function quoted(text) return "'" .. text:gsub("['\\\n\r%z]", ESCAPES) .. "'" end

local function name(text) return "`" .. text:gsub("`", "``") .. "`" end

local function literal(key, value)
  if type(value) == "string" then return quoted(value) end
  if type(value) == "boolean" then return tostring(value) end
  local is_finite = type(value) == "number" and value == value and math.abs(value) < math.huge
  if not is_finite then
    options.misuse('batch.ai_query: option "model_parameters": %s must be a string, a number or a boolean',
      key)
  end
  return math.type(value) == "integer" and ("%d"):format(value) or json.encode(value)
end

local function model_parameters(given)
  local keys, parts = {}, {}
  for key in pairs(given or {}) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  for index, key in ipairs(keys) do
    parts[index] = ("%s, %s"):format(quoted(key), literal(key, given[key]))
  end
  if #parts == 0 then return "" end
  return (", modelParameters => named_struct(%s)"):format(table.concat(parts, ", "))
end

local function call(given, request)
  return ("ai_query(%s, %s, failOnError => false%s)"):format(quoted(given.endpoint), request,
    model_parameters(given.model_parameters))
end

---The statement for prompts that come as its parameter `rows`, a JSON array. Raises for parameters of the wrong type.
---@param given { endpoint: string, model_parameters?: table }
---@return string
function prompts.statement_of_rows(given)
  return ("SELECT pos, %s AS answer FROM posexplode(from_json(:rows, 'ARRAY<STRING>')) ORDER BY pos"):format(
    call(given, "col"))
end

-- The parts of a table's name, with or without quotes; nil for what is none.
local function parts_of(text)
  local parts, at = {}, 1
  repeat
    local word, after = text:match("^([%w_-]+)()", at)
    if not word then word, after = text:match("^`([^`]+)`()", at) end
    if not word then return nil end
    parts[#parts + 1] = name(word)
    local is_last = after > #text
    if not is_last and text:sub(after, after) ~= "." then return nil end
    at = after + 1
  until is_last or #parts > 3
  return #parts <= 3 and parts or nil
end

---The statement for a table. Raises for what is no table's name.
---@param given { endpoint: string, input: string, prompt?: string, id?: string, model_parameters?: table }
---@return string
function prompts.statement_of_table(given)
  local parts = parts_of(given.input)
  if not parts then
    options.misuse('batch.ai_query: option "input": %q is no table; rows of a file come by io.lines(FILE)',
      given.input)
  end
  local id = given.id and name(given.id) .. " AS id, " or ""
  return ("SELECT %s%s AS answer FROM %s"):format(id, call(given, name(given.prompt or "prompt")),
    table.concat(parts, "."))
end

-- ---- answers ----

local KINDS <const> = {
  BAD_REQUEST = "BadRequest", UNAUTHENTICATED = "Unauthenticated", PERMISSION_DENIED = "PermissionDenied",
  NOT_FOUND = "NotFound", ENDPOINT_NOT_FOUND = "NotFound", RESOURCE_CONFLICT = "ResourceConflict",
  INTERNAL_ERROR = "InternalError", NOT_IMPLEMENTED = "NotImplemented",
  DEADLINE_EXCEEDED = "DeadlineExceeded",
  TEMPORARILY_UNAVAILABLE = "TemporarilyUnavailable", CANCELLED = "Cancelled",
}

-- An error comes as text: with the service's answer in it, or a code before it, or neither.
local function code_of(text)
  local object = text:match "%b{}"
  local value = object and json.decode(object)
  if type(value) == "table" and type(value.error_code) == "string" then
    return value.error_code, type(value.message) == "string" and value.message or text
  end
  local code, message = text:match "^([%u][%u%d_]+): (.*)$"
  if code then return code, message end
  return text:match "^%[([%u][%u%d_.]+)%]", text
end

---The err that an error text of ai_query means.
---@param endpoint string
---@param text string
---@return sluice.Error
function prompts.error_of(endpoint, text)
  local code, message = code_of(text)
  local status = code and tonumber(code:match "^HTTP_(%d%d%d)$")
  local kind = errors.kind_of_code(code) or KINDS[code] or (status and errors.kind_of(status)) or "APIError"
  return errors.new(kind, {
    operation = "ai_query", object = endpoint, code = code, status = status,
      message = errors.excerpt(message),
  })
end

local function given_of(value)
  if value == json.null then return nil end
  return value
end

local function response_of(endpoint, text)
  local message = { role = "assistant", content = text }
  return { object = "chat.completion", model = endpoint, choices = json.array { { index = 0,
    message = message } } }
end

---What a cell of ai_query says: an answer in the shape of a chat's, or an err. The members of its STRUCT have had two
---names each; both are read.
---@param endpoint string
---@param number integer of the row
---@param cell any
---@return table? response
---@return sluice.Error? err
function prompts.read_answer(endpoint, number, cell)
  cell = given_of(cell)
  if cell == nil then return malformed(number, "has no prompt") end
  if type(cell) == "string" then return response_of(endpoint, cell) end
  local problem = type(cell) == "table" and (given_of(cell.errorMessage) or given_of(cell.errorStatus))
  if problem and problem ~= "" then return nil, prompts.error_of(endpoint, tostring(problem)) end
  local text = type(cell) == "table" and (given_of(cell.result) or given_of(cell.response))
  if type(text) == "string" then return response_of(endpoint, text) end
  return nil, errors.new("ProtocolError", {
    operation = "ai_query", object = endpoint,
    message = ("row %d has an answer of no known shape: %s"):format(number,
    errors.excerpt(json.encode(cell))),
  })
end

return prompts
