-- SPDX-License-Identifier: MIT
-- Spans: parts of a trace, each with a beginning and an end; the running task knows the one that it works for.

local errors = require "sluice.errors"
local system = require "sluice.core.system"
local task = require "sluice.core.task"

local core, metatable, looked_up = require("sluice.core.span").make(string.unpack("<i8", system.random(8)))
local finish = core.finish

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
---@field root sluice.trace.Span the outermost span of this program
---@field parts? sluice.trace.Span[] of the outermost one: those inside of it, 256 at most
---@field response sluice.Response? of an HTTP request: its timing is a part of the waterfall
local methods = looked_up

metatable.__name = "sluice.trace.span"

function metatable.__tostring(self)
  return require("sluice.trace.waterfall").of_span(self)
end

function metatable.__tojson(self)
  return { trace_id = self.trace_id, span_id = self.span_id, name = self.name, duration = self.duration }
end

---Begins a span. Never waits.
---@type fun(name: string, kind: integer, parent?: sluice.trace.Context, exporter?: sluice.trace.Exporter, sampled?: boolean): sluice.trace.Span
---`parent`: a span of ours, or who called; nil: a new trace. `exporter`: who is given it at its end; that of the
---parent. `sampled`: whether a new trace is recorded (true)
spans.start = core.start

---The span that the running task works for, or the context of who called; nil.
---@return sluice.trace.Context?
function spans.active()
  return task.get_local "trace"
end

---Begins a span inside of the active one that has no parts of its own; nil where nothing is recorded. A `<close>`
---value: it ends with its block at the latest.
---@type fun(name: string, kind: integer): sluice.trace.Span?
spans.leaf = core.inside

---The same, and makes it the active one until it ends.
---@param name string
---@param kind integer
---@return sluice.trace.Span?
function spans.inside(name, kind)
  local span = core.inside(name, kind)
  return span and core.enter(span)
end

---Makes it the one that the running task works for, and the tasks that it spawns.
---@type fun(self: sluice.trace.Span): sluice.trace.Span
spans.enter = core.enter

---See spans.enter.
---@type fun(self: sluice.trace.Span): sluice.trace.Span
methods.enter = core.enter

---The running task works for what it worked for before. Idempotent.
---@type fun(self: sluice.trace.Span)
methods.leave = core.leave

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
  self.events[#self.events + 1] = { name, at or task.now() }
end

---Ends it, and hands it to its exporter. Idempotent. Never waits.
---@param self sluice.trace.Span
---@param failure? string the kind of an error
function spans.finish(self, failure)
  if failure and not self.duration then
    self.failure = failure
    self:set("error.type", failure)
  end
  finish(self)
end

---See spans.finish.
---@type fun(self: sluice.trace.Span, failure?: string)
methods.finish = spans.finish

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
  spans.finish(self, value == nil and spans.kind_of(err) or nil)
  return value, err
end

function metatable.__close(self, err)
  spans.finish(self, err ~= nil and spans.kind_of(err) or nil)
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

---The traceparent for whoever is asked in the name of a context.
---@type fun(context: sluice.trace.Context): string
spans.header = core.header

---Adds the fields traceparent and tracestate to those of a request, in a copy, for whoever is asked in the name of a
---context; those that the caller has set stay.
---@type fun(flat: string[], context: sluice.trace.Context): string[]
---`flat`: name, value, name, value, ...
spans.carry = core.carry

---As OTLP/HTTP takes it.
---@type fun(span: sluice.trace.Span, rest_of: (fun(span: sluice.trace.Span): string), value_of: (fun(value: any): string)): string
---`rest_of`: gives what follows the attributes; `value_of`: writes what is no text, no number and no list of texts
spans.json = core.json

---The traceparent, and the tracestate, for whoever is asked in the running task; nil.
---@return string? traceparent
---@return string? tracestate
function spans.outgoing()
  local active = task.get_local "trace"
  if not active then return nil end
  return core.header(active), active.state
end

return spans
