-- SPDX-License-Identifier: MIT
-- What a comparison comes to: "better", "worse", "no difference shown" or "inconclusive", and why, in words.

local verdict = {}

---What is tested of each variant: the share of successes, and the typical latency.
verdict.TESTS = 2

local function points(low, high, sign)
  local form = ("%%%s.2f to %%%s.2f points"):format(sign, sign)
  return form:format(low * 100, high * 100)
end

local function percent(low, high, sign)
  local form = ("%%%s.1f to %%%s.1f %%%%"):format(sign, sign)
  return form:format(low * 100, high * 100)
end

-- ---- the two questions; each says which way it was decided, and how wide the range is beside what is tolerated:
-- what is surely smaller than that is no difference, however sure it is ----

local function judge_success(difference, tolerance)
  local low, high = difference.always_low, difference.always_high
  if low >= -tolerance and high <= tolerance then
    return "same", "the success rate differs by " .. points(low, high, "+")
  end
  if high < 0 then return "worse", "the success rate is lower by " .. points(-high, -low, "") end
  if low > 0 then return "better", "the success rate is higher by " .. points(low, high, "") end
  return "open", "the success rate differs by " .. points(low, high, "+"), (high - low) / (2 * tolerance)
end

local function judge_latency(difference, tolerance)
  local typical = difference.typical
  local low, high = typical.always_low, typical.always_high
  if not low then return "open", "the latency differs by anything" end
  local reach = math.log(1 + tolerance)
  if math.log(low) >= -reach and math.log(high) <= reach then
    return "same", "the latency differs by " .. percent(low - 1, high - 1, "+")
  end
  if low > 1 then return "worse", "answers take longer by " .. percent(low - 1, high - 1, "") end
  if high < 1 then return "better", "answers come sooner by " .. percent(1 - high, 1 - low, "") end
  local text = "the latency differs by " .. percent(low - 1, high - 1, "+")
  return "open", text, math.log(high / low) / (2 * reach)
end

-- An interval is as wide as one over the root of the number of requests: how many more make it narrow enough.
local function needed(requests, widths)
  local widest = math.max(0, table.unpack(widths))
  if widest <= 1 then return nil end
  local more = requests * (widest * widest - 1)
  local unit = 10 ^ math.max(0, math.floor(math.log(more, 10)) - 1)
  return math.ceil(more / unit) * unit // 1 | 0
end

local function tell(texts)
  return table.concat(texts, "; ")
end

local function judge(differences, tolerance)
  local found, widths = { worse = {}, better = {}, same = {}, open = {} }, {}
  local function add(outcome, text, width)
    table.insert(found[outcome], text)
    widths[#widths + 1] = outcome == "open" and width or nil
  end
  add(judge_success(differences.success, tolerance.success))
  if differences.latency then add(judge_latency(differences.latency, tolerance.latency)) end
  return found, widths
end

---The verdict on a variant.
---@param differences table see figures.difference
---@param tolerance { success: number, latency: number } what does not matter
---@param requests integer of the smaller of the two
---@return "better"|"worse"|"no difference shown"|"inconclusive" verdict
---@return string reason
---@return integer? more about how many more requests of each would settle it
function verdict.of(differences, tolerance, requests)
  local found, widths = judge(differences, tolerance)
  if #found.worse > 0 then
    local but = #found.better > 0 and (", although " .. tell(found.better)) or ""
    return "worse", tell(found.worse) .. but
  end
  if #found.better > 0 then return "better", tell(found.better) end
  if #found.open == 0 then
    return "no difference shown", tell(found.same) .. ", which is within what is tolerated"
  end
  local more = needed(requests, widths)
  local hint = more and (": about %d more requests of each would settle it"):format(more) or ""
  return "inconclusive", "it may be that " .. tell(found.open) .. hint, more
end

return verdict
