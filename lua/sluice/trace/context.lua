-- SPDX-License-Identifier: MIT
-- W3C Trace Context: who called, as the header fields traceparent and tracestate say it.

local context = {}

---Where a trace stands: what is sent to whoever is asked next.
---@class sluice.trace.Context
---@field trace_id string 32 hexadecimal digits
---@field span_id string 16 hexadecimal digits, of the caller's span
---@field sampled boolean whether the caller records the trace
---@field state string? tracestate, passed on as it came

local NO_TRACE <const>, NO_SPAN <const> = ("0"):rep(32), ("0"):rep(16)
local HEAD <const> = "^(%x%x)%-(%x+)%-(%x+)%-(%x%x)(.*)$"
local TRACE_DIGITS <const>, SPAN_DIGITS <const> = 32, 16

---Reads the fields, strictly by W3C's recommendation of 2021: a traceparent that is none is as if it were not
---there, and so is a tracestate, by itself. Versions to come are read as far as this one goes.
---@param traceparent any
---@param tracestate? any several fields are joined by commas
---@return sluice.trace.Context?
function context.parse(traceparent, tracestate)
  if type(traceparent) ~= "string" or traceparent:sub(1, 55):find "%u" then return nil end
  local version, trace_id, span_id, flags, rest = traceparent:match(HEAD)
  if not version or version == "ff" then return nil end
  if #trace_id ~= TRACE_DIGITS or #span_id ~= SPAN_DIGITS then return nil end
  if trace_id == NO_TRACE or span_id == NO_SPAN then return nil end
  if rest ~= "" and (version == "00" or rest:byte() ~= 0x2D) then return nil end
  return {
    trace_id = trace_id, span_id = span_id, sampled = tonumber(flags, 16) & 1 == 1,
    state = context.state(tracestate),
  }
end

local MOST_MEMBERS <const>, LONGEST_KEY <const>, LONGEST_VALUE <const> = 32, 256, 256
local LONGEST_TENANT <const>, LONGEST_SYSTEM <const> = 241, 14
-- Bytes that are passed on; the recommendation asks for 512 at least.
local LONGEST_STATE <const> = 8192

local function is_key(key)
  local tenant, system = key:match "^([%l%d][%l%d_%-*/]*)@(%l[%l%d_%-*/]*)$"
  if tenant then return #tenant <= LONGEST_TENANT and #system <= LONGEST_SYSTEM end
  return #key <= LONGEST_KEY and key:find "^%l[%l%d_%-*/]*$" ~= nil
end

-- Printable, without comma and equals sign, no blank at its end.
local function is_value(value)
  return #value <= LONGEST_VALUE and value:find "^[\32-\43\45-\60\62-\126]*[\33-\43\45-\60\62-\126]$" ~= nil
end

---A tracestate without blanks and empty members; nil where it is none.
---@param text any
---@return string?
function context.state(text)
  if type(text) ~= "string" or #text > LONGEST_STATE then return nil end
  local members, seen = {}, {}
  for member in (text .. ","):gmatch "[ \t]*([^,]-)[ \t]*," do
    if member ~= "" then
      local key, value = member:match "^([^=]+)=(.*)$"
      if not key or not is_key(key) or not is_value(value) or seen[key] then return nil end
      seen[key] = true
      members[#members + 1] = member
      if #members > MOST_MEMBERS then return nil end
    end
  end
  return #members > 0 and table.concat(members, ",") or nil
end

return context
