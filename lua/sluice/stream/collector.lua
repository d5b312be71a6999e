-- SPDX-License-Identifier: MIT
-- Puts the chunks of a streamed answer together: the same shape as the answer to a query.

local delta = require "sluice.stream.delta"
local json = require "sluice.json"

local collector = {}

---@class sluice.stream.Collector
local methods = {}
local metatable = { __name = "sluice.stream.collector", __index = methods }

---Makes one that has nothing yet.
---@return sluice.stream.Collector
function collector.new()
  return setmetatable({
    _fields = nil, -- of the chunks themselves: id, model, ...
    _choices = nil, -- by index
    _pieces = nil, -- of the text of streams without choices
    _items = nil, -- finished output items of the Responses API
    _answer = nil, -- the whole answer, where an event brings it
    _plain = nil, -- the pieces of the first choice's text, where more of it is all that may come
  }, metatable)
end

local function is_some(value)
  return value ~= nil and value ~= json.null
end

-- ---- content ----

-- The parts of blocks that come in pieces; all else is said once.
local GROWING <const> = { text = true, thinking = true, signature = true }

local add_block

local function grow_block(block, more)
  for key, value in pairs(more) do
    if type(value) == "table" and type(block[key]) == "table" then
      for _, inner in ipairs(value) do add_block(block[key], inner) end
    elseif GROWING[key] and type(value) == "string" and type(block[key]) == "string" then
      block[key] = block[key] .. value
    elseif is_some(value) then
      block[key] = value
    end
  end
end

local function copy_block(block)
  if type(block) ~= "table" then return block end
  local copy = setmetatable({}, getmetatable(block))
  for key, value in pairs(block) do copy[key] = copy_block(value) end
  return copy
end

-- A block of the same type as the last one goes on with it.
function add_block(blocks, block)
  local last = blocks[#blocks]
  if type(block) == "table" and type(last) == "table" and last.type == block.type then
    grow_block(last, block)
  else
    blocks[#blocks + 1] = copy_block(block)
  end
end

local function text_block(text)
  return { type = "text", text = text }
end

-- So many pieces become one: a piece takes more memory than its text.
local MANY <const> = 256

local function add_piece(pieces, text)
  local count = #pieces
  if count >= MANY then
    local joined = table.concat(pieces)
    for at = 2, count do pieces[at] = nil end
    pieces[1], count = joined, 1
  end
  pieces[count + 1] = text
end

local function add_content(choice, content)
  if type(content) == "table" then
    if not choice.blocks then
      choice.blocks = json.array()
      local before = table.concat(choice.pieces)
      if before ~= "" then add_block(choice.blocks, text_block(before)) end
    end
    for _, block in ipairs(content) do add_block(choice.blocks, block) end
  elseif type(content) == "string" and content ~= "" then
    if choice.blocks then
      add_block(choice.blocks, text_block(content))
    else
      add_piece(choice.pieces, content)
    end
  end
end

-- ---- tool calls ----

-- Arguments come in pieces; what else a call has comes whole, and some servers repeat it.
local function grow_call(call, more)
  for key, value in pairs(more) do
    if key == "arguments" and type(value) == "string" then
      call.arguments = (type(call.arguments) == "string" and call.arguments or "") .. value
    elseif key ~= "index" and type(value) == "table" then
      call[key] = type(call[key]) == "table" and call[key] or {}
      grow_call(call[key], value)
    elseif key ~= "index" and is_some(value) and (call[key] == nil or call[key] == "") then
      call[key] = value
    end
  end
end

local function begins_call(call, more)
  return type(more.id) == "string" and more.id ~= "" and type(call.id) == "string" and call.id ~= more.id
end

-- The call that a piece belongs to: by its index, or the last one where there is none. Another id is
-- another call, whatever the index says: some servers number all of them 0.
local function call_of(calls, more)
  local index = math.type(more.index) == "integer" and more.index or nil
  for at = #calls, 1, -1 do
    local call = calls[at]
    if index == nil or call.index == index then
      if not begins_call(call.value, more) then return call.value end
      break
    end
  end
  local value = {}
  calls[#calls + 1] = { index = index, value = value }
  return value
end

local function add_calls(choice, calls)
  choice.calls = choice.calls or {}
  for _, more in ipairs(calls) do
    if type(more) == "table" then grow_call(call_of(choice.calls, more), more) end
  end
end

-- ---- choices ----

local function choice_of(self, index)
  index = math.type(index) == "integer" and index or 0
  local choices = self._choices or {}
  self._choices = choices
  local choice = choices[index]
  if not choice then
    choice = { index = index, pieces = {} }
    choices[index] = choice
  end
  return choice
end

local function add_change(choice, change)
  for key, value in next, change do
    if key == "content" then
      add_content(choice, value)
    elseif key == "role" then
      choice.role = choice.role or type(value) == "string" and value or nil
    elseif key == "tool_calls" then
      if type(value) == "table" then add_calls(choice, value) end
    elseif key == "function_call" then
      choice.function_call = choice.function_call or {}
      if type(value) == "table" then grow_call(choice.function_call, value) end
    elseif type(value) == "string" then
      choice.texts = choice.texts or {}
      choice.texts[key] = choice.texts[key] or {}
      add_piece(choice.texts[key], value)
    elseif is_some(value) then
      choice.others = choice.others or {}
      choice.others[key] = value
    end
  end
end

local function add_logprobs(choice, logprobs)
  choice.logprobs = choice.logprobs or {}
  for key, list in pairs(logprobs) do
    if type(list) == "table" then
      choice.logprobs[key] = choice.logprobs[key] or json.array()
      table.move(list, 1, #list, #choice.logprobs[key] + 1, choice.logprobs[key])
    end
  end
end

local IN_PARTS <const> = {
  index = true, delta = true, message = true, text = true, finish_reason = true, logprobs = true,
}

local function add_choice(self, piece)
  local choice = choice_of(self, piece.index)
  local change = piece.delta or piece.message
  if type(change) == "table" then add_change(choice, change) end
  if type(piece.text) == "string" then
    choice.is_text = true
    add_piece(choice.pieces, piece.text)
  end
  if type(piece.logprobs) == "table" then add_logprobs(choice, piece.logprobs) end
  local reason = piece.finish_reason
  if type(reason) ~= "string" or reason == "" then return false end
  choice.finish_reason = reason
  for key, value in pairs(piece) do
    if not IN_PARTS[key] and is_some(value) then
      choice.extra = choice.extra or {}
      choice.extra[key] = value
    end
  end
  return true
end

-- ---- chunks ----

local function add_fields(self, chunk)
  self._fields = self._fields or {}
  for key, value in pairs(chunk) do
    if key ~= "choices" and key ~= "delta" and is_some(value) then self._fields[key] = value end
  end
end

local function add_event(self, chunk)
  if type(chunk.response) == "table" and delta.is_last(chunk) then self._answer = chunk.response end
  if chunk.type == "response.output_item.done" and type(chunk.item) == "table" then
    self._items = self._items or json.array()
    self._items[#self._items + 1] = chunk.item
  end
  local text = delta.text(chunk)
  if text then
    self._pieces = self._pieces or {}
    add_piece(self._pieces, text)
  end
  if chunk.type == nil then add_fields(self, chunk) end
end

---Adds a chunk.
---@param chunk any
function methods:add(chunk)
  if type(chunk) ~= "table" then return end
  local choices = chunk.choices
  if type(choices) ~= "table" then
    add_event(self, chunk)
    return
  end
  local has_more = #choices == 0 or not self._fields
  for _, piece in ipairs(choices) do
    if type(piece) == "table" and add_choice(self, piece) then has_more = true end
  end
  if has_more then
    add_fields(self, chunk)
  elseif type(chunk.usage) == "table" then
    self._fields.usage = chunk.usage -- of all before as well: the last one counts
  end
  local choice = self._choices and self._choices[0]
  self._plain = choice and not choice.blocks and choice.pieces or nil
end

---Adds a chunk that is nothing but this text, see delta.plain.
---@param text string
---@param chunk table
function methods:add_text(text, chunk)
  local pieces = self._plain
  if not pieces then
    self:add(chunk)
    return
  end
  add_piece(pieces, text)
  local usage = chunk.usage
  if usage ~= nil and type(usage) == "table" then self._fields.usage = usage end
end

---The text so far, of the first choice.
---@return string
function methods:text()
  local choice = self._choices and self._choices[0]
  if choice and choice.blocks then return delta.text_of_content(choice.blocks) or "" end
  return table.concat(choice and choice.pieces or self._pieces or {})
end

-- ---- the answer ----

local function content_of(choice)
  if choice.blocks then return choice.blocks end
  local is_call = (choice.calls or choice.function_call) and #choice.pieces == 0
  return is_call and json.null or table.concat(choice.pieces)
end

local function message_of(choice)
  local message = { role = choice.role or "assistant", content = content_of(choice) }
  for key, pieces in pairs(choice.texts or {}) do message[key] = table.concat(pieces) end
  for key, value in pairs(choice.others or {}) do message[key] = value end
  message.function_call = choice.function_call
  if choice.calls then
    message.tool_calls = json.array()
    for at, call in ipairs(choice.calls) do message.tool_calls[at] = call.value end
  end
  return message
end

local function finished_choice(choice)
  local made = { index = choice.index, finish_reason = choice.finish_reason or json.null }
  for key, value in pairs(choice.extra or {}) do made[key] = value end
  made.logprobs = choice.logprobs
  if choice.is_text then
    made.text = table.concat(choice.pieces)
  else
    made.message = message_of(choice)
  end
  return made
end

local function answer_of_events(self)
  if self._answer then return self._answer end
  local made = {}
  for key, value in pairs(self._fields or {}) do made[key] = value end
  if self._items then
    made.object, made.output = "response", self._items
  elseif self._pieces then
    made.content = table.concat(self._pieces)
  end
  return made
end

---The whole answer.
---@return table
function methods:answer()
  if not self._choices then return answer_of_events(self) end
  local made, indices = {}, {}
  for key, value in pairs(self._fields) do made[key] = value end
  if type(made.object) == "string" then made.object = made.object:gsub("%.chunk$", "") end
  made.choices = json.array()
  for index in pairs(self._choices) do indices[#indices + 1] = index end
  table.sort(indices)
  for at, index in ipairs(indices) do made.choices[at] = finished_choice(self._choices[index]) end
  return made
end

return collector
