-- SPDX-License-Identifier: MIT
-- Spans: parts of a trace, each with a beginning and an end; the running task knows the one that it works for.

local contexts = require "sluice.trace.context"
local core = require "sluice.core.task"
local errors = require "sluice.errors"
local system = require "sluice.core.system"

local now, wall, get_local, set_local = core.now, core.wall, core.get_local, core.set_local

local spans = {}

---Whether anything is traced in this program: nothing is looked for before.
---@type boolean
spans.is_on = false

---The name of the task-local value that holds the span which the task works for, or the context of who called.
spans.LOCAL = "trace"

---Kinds, as OTLP numbers them.
spans.INTERNAL, spans.SERVER, spans.CLIENT = 1, 2, 3

---A part of a trace; its tostring is the waterfall of what it holds.
---@class sluice.trace.Span: sluice.trace.Context
---@field parent_id string? of the span around it
---@field name string
---@field kind integer
---@field started number task.now()
---@field started_at number? of the outermost span of this program: seconds since 1970; see spans.wall
---@field duration number? seconds; nil while it goes on
---@field attributes? any[] name, value, name, value, ... up to `n`; a value may be nil
---@field failure string? the kind of the error that it ended with
---@field events { [1]: string, [2]: number }[]? a name and task.now()
---@field parts? sluice.trace.Span[] of the outermost span of this program: those inside of it
---@field response sluice.Response? of an HTTP request: its timing is a part of the waterfall
local methods = {}
local metatable = { __name = "sluice.trace.span", __index = methods }

function metatable.__tostring(self)
  return require("sluice.trace.waterfall").of_span(self)
end

function metatable.__tojson(self)
  return { trace_id = self.trace_id, span_id = self.span_id, name = self.name, duration = self.duration }
end

-- SplitMix64 from a seed that the system gives: ids must differ between programs, not be secret.
local state = string.unpack("<i8", system.random(8))

local function random64()
  state = state + -0x61c8864680b583eb
  local z = state
  z = (z ~ (z >> 30)) * -0x40a7b892e31b1a47
  z = (z ~ (z >> 27)) * -0x6b2fb644ecceee15
  return z ~ (z >> 31)
end

-- An id of zeros alone is none.
local function new_id()
  return ("%016x"):format(random64() | 1)
end

-- More parts than this a waterfall does not show; they are exported all the same.
local MOST_PARTS <const> = 256

-- Made in one piece, as few fields as there can be: most of what a span costs is its table.
local function new_root(name, kind, caller, exporter, sampled)
  if caller then sampled = caller.sampled elseif sampled == nil then sampled = true end
  local self = setmetatable({
    trace_id = caller and caller.trace_id or ("%016x%016x"):format(random64(), random64() | 1),
    span_id = new_id(), parent_id = caller and caller.span_id, sampled = sampled,
    state = caller and caller.state, name = name, kind = kind, started = now(), started_at = wall(),
    duration = nil, attributes = nil, root = nil, exporter = exporter, before = nil, parts = nil,
    failure = nil,
  }, metatable)
  self.root = self
  return self
end

local function add_part(root, part)
  local parts = root.parts
  if not parts then
    root.parts = { part }
  elseif #parts < MOST_PARTS then
    parts[#parts + 1] = part
  end
end

---Begins a span. Never waits.
---@param name string
---@param kind integer
---@param parent? sluice.trace.Context a span of ours, or who called; nil: a new trace
---@param exporter? sluice.trace.Exporter who is given it at its end; that of the parent
---@param sampled? boolean whether a new trace is recorded (true)
---@return sluice.trace.Span
function spans.start(name, kind, parent, exporter, sampled)
  local root = parent and parent.root
  if not root then return new_root(name, kind, parent, exporter, sampled) end
  local self = setmetatable({
    trace_id = parent.trace_id, span_id = new_id(), parent_id = parent.span_id, sampled = parent.sampled,
    state = parent.state, name = name, kind = kind, started = now(), duration = nil, attributes = nil,
    root = root, exporter = exporter or parent.exporter, before = nil, failure = nil,
  }, metatable)
  if self.sampled then add_part(root, self) end
  return self
end

---The span that the running task works for, or the context of who called; nil.
---@return sluice.trace.Context?
function spans.active()
  return get_local "trace"
end

-- A parent in which something is recorded.
local function recorded()
  local parent = get_local "trace"
  return parent and parent.root and parent.sampled and parent
end

---Begins a span inside of the active one that has no parts of its own; nil where nothing is recorded. A `<close>`
---value: it ends with its block at the latest.
---@param name string
---@param kind integer
---@return sluice.trace.Span?
function spans.leaf(name, kind)
  local parent = recorded()
  return parent and spans.start(name, kind, parent) or nil
end

---The same, and makes it the active one until it ends.
---@param name string
---@param kind integer
---@return sluice.trace.Span?
function spans.inside(name, kind)
  local parent = recorded()
  return parent and spans.start(name, kind, parent):enter() or nil
end

---Makes it the one that the running task works for, and the tasks that it spawns.
---@return sluice.trace.Span
function methods:enter()
  self.before = set_local("trace", self) or false
  return self
end

---The running task works for what it worked for before. Idempotent.
function methods:leave()
  local before = self.before
  if before == nil then return end
  self.before = nil
  set_local("trace", before or nil)
end

---Notes attributes: texts, numbers, booleans, and arrays of them; nil is left out.
---@param name string
---@param value any
function methods:set(name, value)
  if value == nil then return end
  local attributes = self.attributes
  if not attributes then
    self.attributes = { name, value, n = 2 }
    return
  end
  local count = attributes.n
  attributes[count + 1], attributes[count + 2], attributes.n = name, value, count + 2
end

---Notes that something happened now.
---@param name string
---@param at? number task.now()
function methods:event(name, at)
  self.events = self.events or {}
  self.events[#self.events + 1] = { name, at or now() }
end

---Ends it, and hands it to its exporter. Idempotent. Never waits.
---@param failure? string the kind of an error
function methods:finish(failure)
  self:leave()
  if self.duration then return end
  self.duration, self.failure = now() - self.started, failure
  if failure then self:set("error.type", failure) end
  local exporter = self.exporter
  if exporter and self.sampled then exporter:export(self) end
end

---The kind of what was raised or given as an err, as an attribute.
---@param err any
---@return string
function spans.kind_of(err)
  return errors.is(err) and err.kind or "_OTHER"
end

---Ends it by what a call gave, and gives that.
---@param value any
---@param err any
---@return any value
---@return any err
function methods:done(value, err)
  self:finish(value == nil and spans.kind_of(err) or nil)
  return value, err
end

function metatable.__close(self, err)
  self:finish(err ~= nil and spans.kind_of(err) or nil)
end

---When a moment of a span was.
---@param span sluice.trace.Span
---@param at number task.now()
---@return number seconds since 1970
function spans.wall(span, at)
  return span.root.started_at + at - span.root.started
end

---Whether it is a span.
---@param value any
---@return boolean
function spans.is(value)
  return getmetatable(value) == metatable
end

---The traceparent, and the tracestate, for whoever is asked in the running task; nil.
---@return string? traceparent
---@return string? tracestate
function spans.outgoing()
  local active = get_local "trace"
  if not active then return nil end
  return contexts.header(active), active.state
end

return spans
