-- SPDX-License-Identifier: MIT
-- What we know about a value without writing into it: timing, attempts, ids of a response.

local meta = {}

-- An entry lives as long as its object does.
local facts = setmetatable({}, { __mode = "k" })
-- What gives the facts when they are asked for first.
local makers = setmetatable({}, { __mode = "k" })

-- What is to be added to the facts when somebody asks for them.
local notes = setmetatable({}, { __mode = "k" })

-- Its metatable may have a function `__facts` that gives what was known from the start, so that nothing is
-- made for those that nobody asks about.
local function first_known(object)
  local make = makers[object]
  local kept
  if make then
    makers[object] = nil
    kept = make()
  else
    local its = getmetatable(object)
    local first = type(its) == "table" and rawget(its, "__facts")
    kept = first and first(object)
  end
  local noted = notes[object]
  if noted then
    notes[object] = nil
    kept = kept or {}
    for name, value in next, noted do kept[name] = value end
  end
  if kept then facts[object] = kept end
  return kept
end

-- What is known of the object, or nil.
local function known(object)
  return facts[object] or first_known(object)
end

---Adds facts about an object; those of the same name are replaced.
---@param object table|userdata|function
---@param more table
---@return table|userdata|function object
function meta.set(object, more)
  local kept = known(object)
  if not kept then
    kept = {}
    facts[object] = kept
  end
  for name, value in next, more do kept[name] = value end
  return object
end

---As set, with facts that are made when somebody asks for them first.
---@param object table|userdata|function
---@param make fun(): table a fresh table; may not wait
---@return table|userdata|function object
function meta.later(object, make)
  if notes[object] or known(object) then return meta.set(object, make()) end
  makers[object] = make
  return object
end

---As set, for what many objects have in common: nothing is made until somebody asks, and the latest call is the one
---that counts until then.
---@param object table|userdata|function
---@param more table shared, never changed
---@return table|userdata|function object
function meta.note(object, more)
  local kept = facts[object]
  if kept then
    for name, value in next, more do kept[name] = value end
  else
    notes[object] = more
  end
  return object
end

---Makes two objects one in this respect: what becomes known of either is known of both.
---@param object table|userdata|function what was known of it alone is forgotten
---@param other table|userdata|function
---@return table|userdata|function object
function meta.share(object, other)
  local kept = known(other)
  if not kept then
    kept = {}
    facts[other] = kept
  end
  facts[object], notes[object] = kept, nil
  return object
end

---The facts about an object; an empty table when nothing is known.
---@param object any
---@return table facts `timing`, `request_id`, `status`, `attempts`, ...; what is there depends on the object
function meta.get(object)
  if object == nil then return {} end
  return facts[object] or first_known(object) or {}
end

---The facts about an object as far as somebody has asked for them, or added some; nil where there are none, or they
---would have to be made first.
---@param object any
---@return table? facts
function meta.at_hand(object)
  return facts[object]
end

return meta
