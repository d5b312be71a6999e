-- SPDX-License-Identifier: MIT
-- Answers as they are made: what every stream can do beside next and close.

local collector = require "sluice.stream.collector"
local delta = require "sluice.stream.delta"
local errors = require "sluice.errors"
local meta = require "sluice.meta"
local options = require "sluice.options"

local stream = {}

---An answer as it is made; a `<close>` value. sluice.meta tells what is known so far: `status`, `headers`,
---`request_id`, `served_model`, `timing`, `ttft` (seconds from the call to the first content), `attempts`.
---@class sluice.Stream
local methods = {}
local metatable = { __name = "sluice.stream", __index = methods }

function metatable.__close(self)
  self:close()
end

-- What is known of its source, once somebody asks.
function metatable.__facts(self)
  return meta.get(meta.set(self._source, {}))
end

---Anything that gives chunks: `next()` the next one, nil at the end, nil and err; `close()` lets go of it.
---What next gives behind a chunk is passed on: the event it came in, and its text where the chunk adds
---nothing else (see sluice.stream.delta).
---@class sluice.ChunkSource
---@field next fun(self: sluice.ChunkSource): any, any
---@field close fun(self: sluice.ChunkSource)

---Gives an object with next() and close() the other methods of a stream; a stream stays what it is.
---@param source sluice.ChunkSource
---@return sluice.Stream
function stream.wrap(source)
  if getmetatable(source) == metatable then return source end
  local kind = type(source)
  if (kind ~= "table" and kind ~= "userdata") or not source.next or not source.close then
    options.misuse("stream.wrap: an object with the methods next and close is needed, got %s",
      options.type_name(source))
  end
  return setmetatable({ _source = source, _collector = collector.new(), _ended = false }, metatable)
end

---Whether the value is a stream made by stream.wrap.
---@param value any
---@return boolean
function stream.is(value)
  return getmetatable(value) == metatable
end

local function finish(self, err)
  self._ended, self._failure = true, err
  if errors.is(err) and err.partial == nil then
    local text = self._collector:text()
    if text ~= "" then err.partial = text end
  end
  self._source:close()
  return nil, err
end

---The next chunk as it came; nil at the end; nil and err, whose `partial` is the text so far. May wait.
---@return any chunk
---@return any event of a chunk, the event it came in; else err
---@return string? text where it is all that the chunk adds
function methods:next()
  if self._ended then return nil, self._failure end
  local chunk, event, text = self._source:next()
  if text then
    self._collector:add_text(text, chunk)
  elseif chunk == nil then
    return finish(self, event)
  else
    self._collector:add(chunk)
  end
  return chunk, event, text
end

---Iterates over the chunks. Raises err. Closes the stream at the end and on break.
---@return fun(): any
function methods:chunks()
  local function step()
    local chunk, event = self:next()
    if chunk == nil and event then error(event, 0) end
    return chunk
  end
  return step, nil, nil, self
end

---Iterates over the pieces of the answer's text, none of them empty. Raises err. Closes the stream at
---the end and on break.
---@return fun(): string?
function methods:text()
  local function step()
    while true do
      local chunk, event, text = self:next()
      if chunk == nil then
        if event then error(event, 0) end
        return nil
      end
      text = text or delta.text(chunk)
      if text and text ~= "" then return text end
    end
  end
  return step, nil, nil, self
end

local function closed_early(self)
  return errors.new("TruncatedStream", {
    message = "the stream was closed before its end", partial = self._collector:text(), retryable = false,
  })
end

---The whole answer in the shape of a query's response, what was read of it before included. Waits.
---@return table? response sluice.meta knows of it what it knows of the stream
---@return sluice.Error? err
function methods:collect()
  while not self._ended do self:next() end
  if self._failure then return nil, self._failure end
  if self._cut then return nil, closed_early(self) end
  if not self._answer then self._answer = meta.share(self._collector:answer(), self) end
  return self._answer
end

---Lets go of the answer: what the server has not sent yet is not waited for. Idempotent, never waits.
function methods:close()
  if self._ended then return end
  self._ended, self._cut = true, true
  self._source:close()
end

return stream
