-- SPDX-License-Identifier: MIT
-- What one chunk of a streamed answer says, in any of the shapes that servers send.

local core = require "sluice.core.delta"

local delta = {}

-- Content as blocks: of reasoning models, where only the blocks of type text are the answer.
local function text_of_blocks(blocks)
  local parts = {}
  for _, block in ipairs(blocks) do
    local is_text = type(block) == "table" and (block.type == "text" or block.type == nil)
    if is_text and type(block.text) == "string" then parts[#parts + 1] = block.text end
  end
  return table.concat(parts)
end

---The text of a message's content: a string, or blocks.
---@param content any
---@return string? text nil where there is none
function delta.text_of_content(content)
  if type(content) == "string" then return content end
  return type(content) == "table" and text_of_blocks(content) or nil
end

local function text_of_choice(choice)
  local change = choice.delta or choice.message
  local text = type(change) == "table" and delta.text_of_content(change.content) or nil
  if text == nil and type(choice.text) == "string" then text = choice.text end -- legacy completions
  return text
end

-- Without choices: events of the Responses API, and of agents with a delta of their own.
local function text_of_event(chunk)
  local change = chunk.delta
  if type(change) == "string" then return chunk.type == "response.output_text.delta" and change or nil end
  if type(change) ~= "table" then return nil end
  return delta.text_of_content(change.content) or (type(change.text) == "string" and change.text or nil)
end

---What a chunk adds to the answer's text: that of the first choice. nil or "" where it adds nothing.
---@param chunk any
---@return string?
function delta.text(chunk)
  if type(chunk) ~= "table" then return nil end
  local choices = chunk.choices
  if type(choices) ~= "table" then return text_of_event(chunk) end
  for _, choice in ipairs(choices) do
    if type(choice) == "table" and (choice.index == nil or choice.index == 0) then
      return text_of_choice(choice)
    end
  end
  return nil
end

---The text of a chunk that adds text to the first choice and nothing else, as nearly all do; nil of any
---other.
---@param chunk any
---@return string?
delta.plain = core.plain

---Why a choice of the chunk has ended, the first that tells.
---@param chunk table
---@return string?
function delta.finish_reason(chunk)
  local choices = chunk.choices
  if type(choices) ~= "table" then return nil end
  for _, choice in ipairs(choices) do
    local reason = type(choice) == "table" and choice.finish_reason
    if type(reason) == "string" and reason ~= "" then return reason end
  end
  return nil
end

-- The last events of the Responses API, which has no end mark.
local LAST <const> = { ["response.completed"] = true, ["response.incomplete"] = true }

---Whether a chunk says that the answer is complete, be there an end mark or not.
---@param chunk table
---@return boolean
function delta.is_last(chunk)
  return LAST[chunk.type] or delta.finish_reason(chunk) ~= nil
end

-- A string with something in it, or a table: tool calls, blocks, a function's call.
local function is_something(value)
  return type(value) == "string" and value ~= "" or type(value) == "table" and next(value) ~= nil
end

local function choice_has_content(choice)
  if type(choice) ~= "table" then return false end
  local change = choice.delta or choice.message
  for key, value in pairs(type(change) == "table" and change or {}) do
    if key ~= "role" and is_something(value) then return true end
  end
  return is_something(choice.text) or is_something(choice.finish_reason)
end

-- Of the Responses API: announcements of what is about to come.
local EMPTY <const> = {
  ["response.created"] = true, ["response.in_progress"] = true, ["response.queued"] = true,
  ["response.output_item.added"] = true, ["response.content_part.added"] = true, ping = true,
  message_start = true, content_block_start = true,
}

---Whether a chunk holds a part of the answer, or its end: not a role alone, usage, or an announcement.
---@param chunk any
---@return boolean
function delta.has_content(chunk)
  if type(chunk) ~= "table" then return true end
  local choices = chunk.choices
  if type(choices) == "table" then
    for _, choice in ipairs(choices) do
      if choice_has_content(choice) then return true end
    end
    return false
  end
  if chunk.type ~= nil then return not EMPTY[chunk.type] end
  return next(chunk) ~= nil and chunk.usage == nil
end

return delta
