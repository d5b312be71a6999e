-- SPDX-License-Identifier: MIT
-- What an earlier run has left: which rows are done, and where to go on.
--
-- It starts from the last checkpoint of the journal and reads what the output has behind it. Rows are started in their
-- order, so what is not done is what was under way, and every row from some number on.

local files = require "sluice.batch.files"
local journal = require "sluice.batch.journal"
local row = require "sluice.batch.row"
local tally = require "sluice.batch.tally"

local resume = {}

---@class sluice.batch.Plan
---@field next integer the first row that was never started
---@field offset integer its place in the input
---@field missing table<integer, integer> places of rows before it that are not done
---@field held table<integer, string> results that are not in the output yet
---@field tally sluice.batch.Tally
---@field last integer the last row of the output, where that is in the order of the input

---Of a run that starts at the beginning.
---@param source sluice.BatchSource
---@return sluice.batch.Plan
function resume.fresh(source)
  return { next = 1, offset = source.offset or 0, missing = {}, held = {}, tally = tally.new(), last = 0 }
end

local function plan_of(checkpoint)
  local plan = { next = checkpoint.next, offset = checkpoint.offset, missing = {}, held = {} }
  for _, pair in ipairs(checkpoint.missing) do plan.missing[pair[1]] = pair[2] end
  plan.tally, plan.last = tally.new(checkpoint.tally), checkpoint.last
  return plan
end

---The checkpoint that says this.
---@param plan { next: integer, offset: integer, missing: table<integer, integer>, tally: sluice.batch.Tally }
---@param size integer of the output, in bytes
---@return table
function resume.checkpoint(plan, size)
  local missing = {}
  for number, offset in next, plan.missing do missing[#missing + 1] = { number, offset } end
  return {
    next = plan.next, offset = plan.offset, missing = require("sluice.json").array(missing), out = size,
    last = plan.last, tally = plan.tally:save(),
  }
end

-- Goes through the input up to the row; false where it has no such row.
local function walk_to(plan, walker, number)
  if walker.row ~= plan.next - 1 or walker.offset ~= plan.offset then walker:seek(plan.next, plan.offset) end
  while true do
    local each, _, offset = walker:next()
    if not each or each > number then return false end
    plan.next, plan.offset = walker.row + 1, walker.offset
    if each == number then return true end
    plan.missing[each] = offset
  end
end

-- Notes that a row is done: "new", "known" where it was before, "strange" where the input has no such row.
local function mark(plan, walker, number)
  if number >= plan.next then return walk_to(plan, walker, number) and "new" or "strange" end
  if not plan.missing[number] then return "known" end
  plan.missing[number] = nil
  return "new"
end

local function not_ours(path, offset)
  local text = "byte %d begins a line that this batch has not written: it is another run's, or was changed"
  return nil, files.conflict(path, text:format(offset))
end

-- Whether the line can stand where it does.
local function fits(plan, walker, parsed, in_order)
  local state = mark(plan, walker, parsed.row)
  if state == "new" then plan.tally:recount(parsed) end
  if in_order then return state ~= "strange" and parsed.row > plan.last end
  return state == "new"
end

-- Reads the output from `offset` on; a line without an end is cut off.
local function read_output(output, plan, walker, in_order, offset)
  local reader, whole = output:lines(), offset
  reader:seek(1, offset)
  while true do
    local number, line, begin = reader:next()
    if not number then
      if line then return nil, line end
      break
    end
    if reader.offset == output.size and output:read(output.size - 1, 1) ~= "\n" then break end
    local parsed = row.parse(line)
    if begin ~= whole or not parsed or not fits(plan, walker, parsed, in_order) then
      return not_ours(output.path, begin)
    end
    plan.last, whole = parsed.row, reader.offset
  end
  if whole == output.size then return true end
  return output:cut(whole)
end

local function begins_a_line(output, offset)
  return offset == 0 or output:read(offset - 1, 1) == "\n"
end

local function check_head(found, identity, order, output, path)
  local head = found.head
  local before = head.input
  if before.kind ~= identity.kind or before.size ~= identity.size or before.hash ~= identity.hash then
    local text = "the input has changed since this output was begun, or it is another run's output (see %s)"
    return nil, files.conflict(output.path, text:format(path))
  end
  if head.order ~= order then
    return nil, files.conflict(output.path, ('it was begun with order = "%s"'):format(tostring(head.order)))
  end
  return true
end

-- Whoever has taken the output away wants to begin anew.
local function is_begun_anew(found, identity, order, output)
  if output.size > 0 then return false end
  local head = found.head
  return found.checkpoint.out > 0 or head.input.hash ~= identity.hash or head.order ~= order
end

-- Results of the journal that the output does not have.
local function read_results(path, plan, walker)
  local strange
  local ok, err = journal.results(path, function(line)
    local number = math.tointeger(tonumber(line:match '^{"row":(%d+)'))
    local state = number and mark(plan, walker, number) or "strange"
    strange = strange or state == "strange"
    if strange then return end
    if state == "new" then plan.tally:recount(row.parse(line) or {}) end
    if number > plan.last then plan.held[number] = line .. "\n" end
  end)
  if strange then return nil, files.conflict(path, "it has results of rows that are not in the input") end
  return ok, err
end

---Finds out what is done.
---@param source sluice.BatchSource one that can be continued
---@param identity table of the source
---@param output sluice.batch.Appender
---@param path string of the journal
---@param order "input"|"completion"
---@return sluice.batch.Plan?
---@return sluice.Error? err BatchConflict where the files do not belong together
function resume.plan(source, identity, output, path, order)
  local found, err = journal.read(path)
  if err then return nil, err end
  if not found then
    if output.size == 0 then return resume.fresh(source) end
    local text = "it is not empty and has no journal (%s): the output of another run, or of no batch"
    return nil, files.conflict(output.path, text:format(path))
  end
  if is_begun_anew(found, identity, order, output) then return resume.fresh(source) end
  local ok
  ok, err = check_head(found, identity, order, output, path)
  if not ok then return nil, err end
  local plan, offset = plan_of(found.checkpoint), found.checkpoint.out
  if offset > output.size then plan, offset = resume.fresh(source), 0 end
  if not begins_a_line(output, offset) then return not_ours(output.path, offset) end
  local walker = source:another()
  ok, err = read_output(output, plan, walker, order == "input", offset)
  if ok then ok, err = read_results(path, plan, walker) end
  if not ok then return nil, err end
  return plan
end

return resume
