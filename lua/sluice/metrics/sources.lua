-- SPDX-License-Identifier: MIT
-- What layers count of themselves: breakers, budgets of retries, hedges, limits; read for each page of a registry.

local sources = {}

local STATES <const> = { "closed", "half_open", "open" }

-- The objects that a registry reads, each under what its series are labelled with: once, however many endpoints
-- share it, and no longer than it lives.
local of_registries = setmetatable({}, { __mode = "k" })

-- What a field of an endpoint has to have to be the one that we know.
local KINDS <const> = { breaker = "state", retry_budget = "left", hedges = "sent", limiter = "passed" }

local function add_all(kept, field)
  return function(add)
    for object, name in next, kept do add(object[field], name) end
  end
end

local function add_breakers(registry, kept)
  registry:gauge {
    name = "sluice_breakers", labels = { "endpoint", "state" }, help = "Circuit breakers by their state.",
    read = function(add)
      for breaker, name in next, kept do
        for _, state in ipairs(STATES) do add(breaker.state == state and 1 or 0, name, state) end
      end
    end,
  }
  registry:counter {
    name = "sluice_breaker_opened_total", labels = { "endpoint" }, help = "How often a breaker opened.",
    read = add_all(kept, "opened"),
  }
  registry:counter {
    name = "sluice_breaker_refused_total", labels = { "endpoint" },
    help = "Requests that an open breaker turned away.", read = add_all(kept, "refused"),
  }
end

local function add_budgets(registry, kept)
  registry:gauge {
    name = "sluice_retry_budget_left", labels = { "host" },
    help = "Retries that may be made now, without what time has added since the last one.",
    read = add_all(kept, "left"),
  }
  registry:counter {
    name = "sluice_retry_budget_total", labels = { "host", "result" },
    help = "Retries that a budget allowed (taken) and did not (refused).",
    read = function(add)
      for budget, name in next, kept do
        add(budget.taken, name, "taken")
        add(budget.refused, name, "refused")
      end
    end,
  }
end

local function add_hedges(registry, kept)
  registry:counter {
    name = "sluice_hedges_total", labels = { "endpoint", "result" },
    help = "Second tries: sent, of these won (answered first), and refused (the budget was used up).",
    read = function(add)
      for hedges, name in next, kept do
        for _, result in ipairs { "sent", "won", "refused" } do add(hedges[result], name, result) end
      end
    end,
  }
end

local LIMITERS <const> = {
  { "gauge", "sluice_limiter_waiting", "waiting", "Requests that wait for a rate limit." },
  { "counter", "sluice_limiter_passed_total", "passed", "Requests that a rate limit let through." },
  { "counter", "sluice_limiter_waits_total", "waited", "Of these, how many had to wait." },
  { "counter", "sluice_limiter_wait_seconds_total", "waited_seconds", "How long they waited, together." },
  { "counter", "sluice_limiter_refused_total", "refused", "Requests that found no place, or not in time." },
  { "counter", "sluice_limiter_pauses_total", "pauses", "How often a 429 held all requests back." },
}

local function add_limiters(registry, kept)
  for _, each in ipairs(LIMITERS) do
    registry[each[1]](registry, {
      name = each[2], labels = { "endpoint" }, help = each[4], read = add_all(kept, each[3]),
    })
  end
end

local function open(registry)
  local kept = {}
  for field in pairs(KINDS) do kept[field] = setmetatable({}, { __mode = "k" }) end
  of_registries[registry] = kept
  add_breakers(registry, kept.breaker)
  add_budgets(registry, kept.retry_budget)
  add_hedges(registry, kept.hedges)
  add_limiters(registry, kept.limiter)
  return kept
end

-- A field that an endpoint of somebody else's may refuse to look up, or use for something else.
local function field_of(endpoint, name)
  local has, value = pcall(function() return endpoint[name] end)
  if not has or type(value) ~= "table" then return nil end
  local known
  has, known = pcall(function() return value[KINDS[name]] end)
  return has and known ~= nil and value or nil
end

---Has a registry read what the layers of an endpoint know, from now on. Never waits.
---@param registry sluice.metrics.Registry
---@param endpoint sluice.Endpoint
function sources.add(registry, endpoint)
  local kept = of_registries[registry] or open(registry)
  for field in pairs(KINDS) do
    local object = field_of(endpoint, field)
    if object and not kept[field][object] then
      local name = field == "retry_budget" and endpoint.host or endpoint.name
      kept[field][object] = type(name) == "string" and name or ""
    end
  end
end

return sources
