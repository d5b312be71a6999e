-- SPDX-License-Identifier: MIT
-- Transactions: MULTI and EXEC around what a function queues, with WATCH on a connection of their own.

local errors = require "sluice.errors"
local options = require "sluice.options"
local queue = require "sluice.redis.queue"

local transaction = {}

local OPTIONS <const> = { watch = "table?", attempts = "count?" }

-- How often a function is run again because a watched key was changed meanwhile.
local ATTEMPTS <const> = 10

local function surround(commands)
  local list = table.move(commands, 1, #commands, 2, { { "MULTI" } })
  list[#list + 1] = { "EXEC" }
  return list
end

-- What the replies to MULTI, the commands and EXEC come to: the array of EXEC; nil, err; or false.
local function outcome(replies, err)
  if not replies then return nil, err end
  local result = replies[#replies]
  if not errors.is(result) then return result end
  -- EXEC says only that something before it was wrong: what that was says more
  for index = 2, #replies - 1 do
    if errors.is(replies[index]) then
      result.cause = replies[index]
      break
    end
  end
  result.operation = "transaction"
  return nil, result
end

local function run_plain(client, f)
  local tx = queue.new(true)
  f(tx)
  local commands = queue.commands(tx)
  if #commands == 0 then return {} end
  return outcome(client:_batch(surround(commands)))
end

-- One attempt on a connection of its own: the array, nil and an err, or false where a key was changed.
local function run_watched(client, f, watch)
  local own <close>, err = client:_own()
  if not own then return nil, err end
  local watched
  watched, err = own:command("WATCH", table.unpack(watch))
  if not watched then return nil, err end
  local tx = queue.new(true)
  f(tx, own)
  local commands = queue.commands(tx)
  if #commands == 0 then
    own:command "UNWATCH"
    own.clean = true
    return {}
  end
  local result
  result, err = outcome(own:batch(surround(commands)))
  own.clean = result ~= nil
  return result, err
end

---See client:transaction.
---@param client sluice.redis.Client
---@param f fun(tx: sluice.redis.Queue, now: sluice.redis.Own?)
---@param given? { watch?: string[], attempts?: integer }
---@return table?
---@return sluice.Error?
function transaction.run(client, f, given)
  given = options.check("client:transaction", given, OPTIONS)
  if not given.watch then return run_plain(client, f) end
  local attempts = given.attempts or ATTEMPTS
  for _ = 1, attempts do
    local result, err = run_watched(client, f, given.watch)
    if result ~= false then return result, err end
  end
  return nil, errors.new("RedisError", {
    operation = "transaction", object = tostring(client), code = "WATCH", retryable = true,
    message = ("a watched key was changed by others in each of %d attempts"):format(attempts),
  })
end

return transaction
