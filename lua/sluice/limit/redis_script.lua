-- SPDX-License-Identifier: MIT
-- What runs in Redis for a limit that processes share: sluice.limit.memory and sluice.limit.meter over keys.

local redis_script = {}

---The script. KEYS: a hash with the state; sorted sets with what was taken within the period, requests and
---tokens; one with what is under way. ARGV: the operation, the plan in JSON, and the operation's own. The
---clock is the server's. It gives strings, because Redis cuts numbers to integers.
---@type string
redis_script.text = [==[
local op, plan = ARGV[1], cjson.decode(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local SAME = 1e-6 -- times and sums that differ by less are the same
local MOST_UNDER_WAY = 3600 -- seconds; who has not ended by then is gone

local state, changed = {}, {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end

local function get(name, default) return tonumber(state[name] or '') or default end

local function put(name, value)
  state[name] = value and (type(value) == 'number' and string.format('%.17g', value) or value) or nil
  changed[name] = true
end

local function save()
  for name in pairs(changed) do
    if state[name] then
      redis.call('HSET', KEYS[1], name, state[name])
    else
      redis.call('HDEL', KEYS[1], name)
    end
  end
  local rest = plan.rate and plan.burst / plan.rate or 0
  local life = math.ceil(math.max(plan.period, plan.max_pause, rest) * 2 + MOST_UNDER_WAY)
  for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], life) end
end

-- ---- meters ----

local rate, requests, tokens
if plan.rate then rate = { id = 'r', rate = plan.rate, burst = plan.burst } end
if plan.requests then
  requests = { id = 'q', rate = plan.requests / plan.period, most = plan.requests, key = KEYS[2],
    burst = not plan.rate and plan.burst or plan.requests, period = plan.period }
end
if plan.tokens then
  tokens = { id = 't', rate = plan.tokens / plan.period, most = plan.tokens, key = KEYS[3],
    burst = plan.tokens, period = plan.period }
end

local function cost_of(member) return tonumber(string.match(member, ':(.*)$')) end

local function fill(m)
  local level, filled = get(m.id .. ':level', m.burst), get(m.id .. ':filled', now)
  if now > filled then level = math.min(m.burst, level + (now - filled) * m.rate) end
  local held = get(m.id .. ':held')
  if held and now >= held then
    level = math.min(level, (now - held) * m.rate)
    put(m.id .. ':held', nil)
    put(m.id .. ':one', 1)
  end
  put(m.id .. ':filled', now)
  put(m.id .. ':level', level)
  return level
end

local function forget_old(m)
  local old = redis.call('ZRANGEBYSCORE', m.key, '-inf', now - m.period + SAME)
  local sum = get(m.id .. ':sum', 0)
  for _, member in ipairs(old) do sum = sum - cost_of(member) end
  if #old > 0 then redis.call('ZREMRANGEBYRANK', m.key, 0, #old - 1) end
  if redis.call('ZCARD', m.key) == 0 then sum = 0 end
  put(m.id .. ':sum', sum)
  return sum
end

local function missing_in_period(m, cost)
  local over = forget_old(m) + math.min(cost, m.most) - m.most
  local from = 0
  while over > SAME do
    local entries = redis.call('ZRANGE', m.key, from, from + 99, 'WITHSCORES')
    if #entries == 0 then return from == 0 and 0 or m.period end
    for i = 1, #entries, 2 do
      over = over - cost_of(entries[i])
      if over <= SAME or (#entries < 200 and i == #entries - 1) then
        return entries[i + 1] + m.period - now
      end
    end
    from = from + 100
  end
  return 0
end

local function missing(m, cost)
  local level, wait = fill(m), 0
  if not state[m.id .. ':one'] then wait = (math.min(cost, m.burst) - level) / m.rate end
  if wait < SAME then wait = 0 end
  if m.most then wait = math.max(wait, missing_in_period(m, cost)) end
  return wait
end

local function take(m, cost, id)
  local level = fill(m)
  put(m.id .. ':one', nil)
  put(m.id .. ':level', math.max(0, level - cost))
  if not m.most then return end
  redis.call('ZADD', m.key, string.format('%.17g', now), id .. ':' .. cost)
  put(m.id .. ':sum', get(m.id .. ':sum', 0) + cost)
end

local function settle(m, id, at, before, cost)
  if redis.call('ZREM', m.key, id .. ':' .. before) == 0 then return end
  local more = cost - before
  redis.call('ZADD', m.key, at, id .. ':' .. cost)
  put(m.id .. ':level', math.max(0, math.min(m.burst, get(m.id .. ':level', m.burst) - more)))
  put(m.id .. ':sum', get(m.id .. ':sum', 0) + more)
end

-- ---- what the server said is left ----

local function each_gate(f)
  for name, text in pairs(state) do
    if string.sub(name, 1, 5) == 'gate:' then
      local gate = cjson.decode(text)
      if now >= gate.reset_at then
        gate.left = gate.after
        gate.reset_at = now + gate.period
      end
      f(name, gate)
    end
  end
end

local function missing_at(gate, cost)
  local need = gate.limit and math.min(cost, gate.limit) or cost
  local enough = gate.left > 0
  if gate.quantity == 'requests' or gate.limit then enough = gate.left >= need end
  return enough and 0 or gate.reset_at - now
end

local function under_way()
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - MOST_UNDER_WAY)
  local members, sum = redis.call('ZRANGE', KEYS[4], 0, -1), 0
  for _, member in ipairs(members) do sum = sum + cost_of(member) end
  return { requests = #members, tokens = sum }
end

-- ---- operations ----

local operations = {}

-- tokens -> wait, or "0", id, pause, at
function operations.take(text)
  local cost = tonumber(text)
  local wait = math.max(0, get('paused_until', 0) - now)
  if rate then wait = math.max(wait, missing(rate, 1)) end
  if requests then wait = math.max(wait, missing(requests, 1)) end
  if tokens then wait = math.max(wait, missing(tokens, cost)) end
  local gates = {}
  each_gate(function(name, gate)
    gates[name] = gate
    wait = math.max(wait, missing_at(gate, gate.quantity == 'tokens' and cost or 1))
  end)
  if wait > 0 then return { string.format('%.17g', wait) } end
  local id = get('serial', 0) + 1
  put('serial', id)
  id = string.format('%d', id)
  if rate then take(rate, 1, id) end
  if requests then take(requests, 1, id) end
  if tokens then take(tokens, cost, id) end
  for name, gate in pairs(gates) do
    gate.left = gate.left - (gate.quantity == 'tokens' and cost or 1)
    put(name, cjson.encode(gate))
  end
  local at = string.format('%.17g', now)
  redis.call('ZADD', KEYS[4], at, id .. ':' .. cost)
  return { '0', id, string.format('%d', get('pause', 0)), at }
end

-- id, pause, at, tokens; in truth or "", answered "1" or ""
function operations.settle(id, pause, at, before, truth, answered)
  before = tonumber(before)
  redis.call('ZREM', KEYS[4], id .. ':' .. before)
  if tokens and truth ~= '' then settle(tokens, id, at, before, tonumber(truth)) end
  if answered == '1' and tonumber(pause) == get('pause', 0) then put('row', 0) end
end

-- pause of the ticket, seconds or "", a number in [0, 1)
function operations.pause(pause, seconds, chance)
  local is_first = tonumber(pause) == get('pause', 0)
  if is_first then put('row', get('row', 0) + 1) end
  if seconds == '' and not is_first and now < get('paused_until', 0) then return end
  local length = tonumber(seconds)
  if length then
    length = math.min(length, plan.max_pause)
  else
    length = math.min(plan.max_pause, 2 ^ math.min(math.max(get('row', 0) - 1, 0), 60)) * (1 + chance / 10)
  end
  local till = now + length
  if till <= get('paused_until', 0) then return end
  put('paused_until', till)
  put('pause', get('pause', 0) + 1)
  for _, m in pairs({ rate, requests, tokens }) do put(m.id .. ':held', till) end
end

-- facts in JSON
function operations.told(text)
  local counts = under_way()
  for _, fact in ipairs(cjson.decode(text)) do
    local name = 'gate:' .. fact.name
    local gate = state[name] and cjson.decode(state[name]) or { period = 0, quantity = fact.quantity }
    local reset = math.min(fact.reset, plan.max_pause)
    gate.limit = fact.limit
    gate.period = math.max(gate.period, reset)
    gate.reset_at = now + reset
    gate.left = fact.left - counts[fact.quantity]
    gate.after = reset == fact.reset and fact.limit or 1
    put(name, cjson.encode(gate))
  end
end

local result = operations[op](unpack(ARGV, 3))
save()
return result
]==]

return redis_script
