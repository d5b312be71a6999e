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
  return setmetatable({
    _source = source,
    _collector = collector.new(),
    _ended = false,
    _watcher = false, -- see stream.watch
    _listener = false,
    _usage = nil, -- the newest that a chunk told
  }, metatable)
end

-- At its end, of whatever kind, once.
local function tell(self, how, err)
  local watcher = self._watcher
  self._watcher, self._listener = false, false
  if watcher then watcher(self, how, err) end
end

local function both(before, after)
  if not before or not after then return before or after or false end
  return function(...)
    before(...)
    after(...)
  end
end

---Makes a stream of a source as wrap does, and tells of its end: for layers, which so need no stream around
---a stream, with all its text once more.
---@param source sluice.ChunkSource
---@param ended? fun(opened: sluice.Stream, how: "done"|"failed"|"raised"|"closed", err: any) called once; "closed": its reader left before its end, "raised": a wait was cancelled, or the source is at fault; may not wait
---@param arrived? fun() called for each chunk as it is read; may not wait, nor raise
---@return sluice.Stream opened the source itself where it is a stream
function stream.watch(source, ended, arrived)
  local opened = stream.wrap(source)
  opened._watcher = both(opened._watcher, ended)
  opened._listener = both(opened._listener, arrived)
  local how = opened._failure and "failed" or opened._cut and "closed" or "done"
  if opened._ended then tell(opened, how, opened._failure) end
  return opened
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
  tell(self, err == nil and "done" or "failed", err)
  return nil, err
end

-- As the source's next, where somebody wants to know of a raise.
local function next_watched(self)
  local source = self._source
  local good, chunk, event, text = pcall(source.next, source)
  if good then return chunk, event, text end
  tell(self, "raised", chunk)
  error(chunk, 0)
end

---The next chunk as it came; nil at the end; nil and err, whose `partial` is the text so far. May wait.
---@return any chunk
---@return any event of a chunk, the event it came in; else err
---@return string? text where it is all that the chunk adds
function methods:next()
  if self._ended then return nil, self._failure end
  local chunk, event, text
  if self._watcher then
    chunk, event, text = next_watched(self)
  else
    chunk, event, text = self._source:next()
  end
  if chunk == nil then return finish(self, event) end
  if self._listener then self._listener() end
  if text then
    self._collector:add_text(text, chunk)
  else
    self._collector:add(chunk)
    if type(chunk) ~= "table" then return chunk, event end
  end
  local usage = chunk.usage
  if usage ~= nil and type(usage) == "table" then self._usage = usage end
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

---The newest `usage` that a chunk told: of all before as well, where a server says it in each. Never waits.
---@return table? usage
function methods:usage()
  return self._usage
end

---The text so far, of the first choice. Never waits.
---@return string
function methods:so_far()
  return self._collector:text()
end

---Lets go of the answer: what the server has not sent yet is not waited for. Idempotent, never waits.
function methods:close()
  if self._ended then return end
  self._ended, self._cut = true, true
  self._source:close()
  tell(self, "closed")
end

return stream
