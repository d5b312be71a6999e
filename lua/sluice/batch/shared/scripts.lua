-- SPDX-License-Identifier: MIT
-- What Redis does for a shared batch, each in one step: scripts over its three keys, all of them in one slot.
--
-- Rows are the entries of a stream; the id of one is its place among the rows and its number in the input
-- ("17-23"), so that none can be there twice. One consumer group hands them out. A row that is done is taken off the
-- stream in the same step that adds its result to a second stream, and only where it was not done before: whoever is
-- first. Of what a hash holds, `run` tells a batch from one of the same name at another time.

local scripts, texts = {}, {}

-- What all begin with. ARGV[1] is the run.
local PRELUDE <const> = [[
local rows, results, state = KEYS[1], KEYS[2], KEYS[3]
local function get(...) return redis.call('HMGET', state, ...) end
local function is_gone() return redis.call('HGET', state, 'run') ~= ARGV[1] end
]]

-- run, identity of the input, its first place -> run, rows fed, number of the last one, place of the next, total
texts.begin = [[
local found = get('identity', 'run', 'fed', 'row', 'offset', 'total')
if found[1] and found[1] ~= ARGV[2] then return {'conflict'} end
if found[1] then return {'ok', found[2], found[3], found[4], found[5], found[6] or ''} end
if redis.call('XLEN', rows) + redis.call('XLEN', results) > 0 or redis.call('EXISTS', rows) == 1 then
  return {'stray'}
end
redis.call('XGROUP', 'CREATE', rows, 'workers', '0', 'MKSTREAM')
redis.call('HSET', state, 'run', ARGV[1], 'identity', ARGV[2], 'fed', 0, 'row', 0, 'offset', ARGV[3])
return {'ok', ARGV[1], '0', '0', ARGV[3], ''}
]]

-- run, rows fed before, number of the last of these, place behind them, '1' at the end, { number, line }...
-- -> rows fed, and collected
texts.feed = [[
if is_gone() then return {'gone'} end
local found = get('fed', 'row', 'offset', 'total', 'collected')
if found[1] ~= ARGV[2] or found[4] then
  return {'moved', found[1], found[2], found[3], found[4] or ''}
end
local place = tonumber(ARGV[2])
for at = 6, #ARGV, 2 do
  place = place + 1
  redis.call('XADD', rows, string.format('%.0f-%s', place, ARGV[at]), 'line', ARGV[at + 1])
end
local fed = string.format('%.0f', place)
redis.call('HSET', state, 'fed', fed, 'row', ARGV[3], 'offset', ARGV[4])
if ARGV[5] == '1' then redis.call('HSET', state, 'total', fed) end
return {'ok', fed, found[5] or '0'}
]]

-- run or '', consumer, how many, '1' where those of dead workers may be taken, how long in milliseconds these say
-- nothing, how often a suspect was had, '1' where one may be taken -> run, { id, line, times that it was had }...
texts.take = [[
local found = get('run', 'total', 'ended')
if not found[1] then return {ARGV[1] == '' and 'none' or 'gone'} end
if ARGV[1] ~= '' and ARGV[1] ~= found[1] then return {'gone'} end
if found[3] then return {'ended', found[1]} end
local taken, most, bytes, may_suspect = {}, tonumber(ARGV[3]), 8388608, ARGV[7] == '1'
local function has_room() return #taken < most and bytes > 0 end
local function give(entry, times)
  taken[#taken + 1], bytes = {entry[1], entry[2][2], times}, bytes - #entry[2][2]
end
if ARGV[4] == '1' then
  for _, pending in ipairs(redis.call('XPENDING', rows, 'workers', 'IDLE', ARGV[5], '-', '+', 500)) do
    local is_suspect = pending[4] > 0 and pending[4] >= tonumber(ARGV[6])
    if has_room() and (may_suspect or not is_suspect) then
      local got = redis.call('XCLAIM', rows, 'workers', ARGV[2], ARGV[5], pending[1])[1]
      if got and got[2] then give(got, pending[4]) end
      may_suspect = may_suspect and not is_suspect
    end
  end
end
while has_room() do
  local count = math.min(most - #taken, 4) -- rows may be large
  local read = redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[2], 'COUNT', count, 'STREAMS', rows, '>')
  local entries = read and read[1][2] or {}
  for _, entry in ipairs(entries) do give(entry, 0) end
  if #entries < count then break end
end
if #taken == 0 and found[2] and redis.call('XLEN', rows) == 0 then return {'ended', found[1]} end
return {'ok', found[1], taken}
]]

-- run, { id, '1' for an answer, line, what else is known of it }... -> how many were not done before
texts.settle = [[
if is_gone() then return {'gone'} end
local done, ok = 0, 0
for at = 2, #ARGV, 4 do
  redis.call('XACK', rows, 'workers', ARGV[at])
  if redis.call('XDEL', rows, ARGV[at]) == 1 then -- also where Redis has lost that it was handed out
    redis.call('XADD', results, '*', 'id', ARGV[at], 'line', ARGV[at + 2], 'facts', ARGV[at + 3])
    done, ok = done + 1, ok + (ARGV[at + 1] == '1' and 1 or 0)
  end
end
redis.call('HINCRBY', state, 'ok', ok)
redis.call('HINCRBY', state, 'failed', done - ok)
return {'ok', done}
]]

-- run, consumer, id...: of the rows that are this worker's all others may be taken at once
texts.disown = [[
if is_gone() or redis.call('EXISTS', rows) == 0 then return {'gone'} end
local held = {}
for at = 3, #ARGV do
  local id = ARGV[at]
  held[id] = true
end
for _, pending in ipairs(redis.call('XPENDING', rows, 'workers', '-', '+', 100000, ARGV[2])) do
  local id = pending[1]
  if not held[id] then
    redis.call('XCLAIM', rows, 'workers', ARGV[2], 0, id, 'IDLE', 86400000,
      'RETRYCOUNT', math.max(pending[4] - 1, 0), 'JUSTID')
  end
end
return {'ok'}
]]

-- run, consumer, { id, times that it was had before }...: others may take them at once
texts.release = [[
if is_gone() or redis.call('EXISTS', rows) == 0 then return {'gone'} end
local consumer = ARGV[2]
for at = 3, #ARGV, 2 do
  local pending = redis.call('XPENDING', rows, 'workers', ARGV[at], ARGV[at], 1, consumer)
  if pending[1] then
    redis.call('XCLAIM', rows, 'workers', consumer, 0, ARGV[at], 'IDLE', 86400000,
      'RETRYCOUNT', ARGV[at + 1], 'JUSTID')
  end
end
if #redis.call('XPENDING', rows, 'workers', '-', '+', 1, consumer) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', rows, 'workers', consumer)
end
return {'ok'}
]]

-- '', order, which file the output is, its size -> run, which collector this is, size of the output as far as it was
-- collected, the last place of it, places before that which are missing, counts
texts.attach = [[
local found = get('run', 'ended', 'out', 'order', 'file', 'top', 'missing', 'tally', 'collector')
if not found[1] then return {'none'} end
local out, size = tonumber(found[3] or '0'), tonumber(ARGV[4])
if found[4] and found[4] ~= ARGV[2] then return {'order', found[4]} end
if size < out then return {'short', found[3]} end
if size > out and (found[5] ~= ARGV[3] or found[2]) then return {'long', found[3] or '0'} end
local collector = found[9] or '0'
if not found[2] then
  redis.call('HSET', state, 'order', ARGV[2], 'file', ARGV[3])
  collector = string.format('%.0f', redis.call('HINCRBY', state, 'collector', 1))
end
return {found[2] and 'ended' or 'ok', found[1], collector, found[3] or '0', found[6] or '0', found[7] or '[]',
  found[8] or '{}'}
]]

-- run, which collector, id of the last result that it has, how many, and how many bytes at the most
-- -> total, rows fed, { id, fields }...
texts.drain = [[
if is_gone() then return {'gone'} end
local found = get('collector', 'total', 'fed')
if tonumber(found[1] or '0') > tonumber(ARGV[2]) then return {'replaced'} end
local list, last, most, bytes, count = {}, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), 2
while #list < most and bytes > 0 do
  local got, before = redis.call('XRANGE', results, '(' .. last, '+', 'COUNT', count), bytes
  for _, entry in ipairs(got) do list[#list + 1], last, bytes = entry, entry[1], bytes - #entry[2][4] end
  if #got < count then break end
  count = math.min(math.max(math.floor(bytes * count / (before - bytes + 1)), 1), 64)
end
return {'ok', found[2] or '', found[3], list}
]]

-- run, which collector, size of the output, rows in it, the last place, missing places, counts, id of a result...
texts.confirm = [[
if is_gone() then return {'gone'} end
if tonumber(redis.call('HGET', state, 'collector') or '0') > tonumber(ARGV[2]) then return {'replaced'} end
redis.call('HSET', state, 'collector', ARGV[2], 'out', ARGV[3], 'collected', ARGV[4], 'top', ARGV[5],
  'missing', ARGV[6], 'tally', ARGV[7])
for at = 8, #ARGV do redis.call('XDEL', results, ARGV[at]) end
return {'ok'}
]]

-- run, seconds for which it is still known that it was done
texts.finish = [[
if is_gone() then return {'gone'} end
redis.call('DEL', rows, results)
redis.call('HSET', state, 'ended', 1)
redis.call('EXPIRE', state, ARGV[2])
return {'ok'}
]]

-- -> what is known: total, fed, ok, failed, collected, ended; rows and results that are there, rows that workers have
texts.status = [[
local found = get('total', 'fed', 'ok', 'failed', 'collected', 'ended')
if not found[2] then return {'none'} end
for at = 1, 6 do found[at] = found[at] or '' end
local has_rows = redis.call('EXISTS', rows) == 1
return {'ok', found, redis.call('XLEN', rows), redis.call('XLEN', results),
  has_rows and redis.call('XPENDING', rows, 'workers')[1] or 0}
]]

for name, text in pairs(texts) do texts[name] = PRELUDE .. text end

---The text of each, by its name.
---@type table<string, string>
scripts.texts = texts

return scripts
