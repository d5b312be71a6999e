-- SPDX-License-Identifier: MIT
-- A model of tables: the prediction of a row is 1 + x1/1 + x2/2 + x3/3 + ..., where x1, x2, ... are its columns in
-- the order of their names (or of their places, where columns have no names). true counts 1, what is no number 0.

local json = require "sluice.json"
local wire = require "sluice.emulator.wire"

local tabular = {}

-- The keys of a request, of which a body holds exactly one.
local keys = { "dataframe_split", "dataframe_records", "inputs", "instances" }

-- Keys that may stand beside `inputs`; any other is refused, as served models do.
local beside_inputs = { inputs = true, client_request_id = true, usage_context = true }

local function value_of(cell)
  if type(cell) == "number" then return cell end
  return cell == true and 1 or 0
end

local function predict(cells)
  local sum = 1
  for place = 1, #cells do sum = sum + value_of(cells[place]) / place end
  -- A sum beyond the range of floats has no place in JSON.
  if sum ~= sum or math.abs(sum) == math.huge then return json.null end
  return sum
end

-- Rows of a tensor can be nested: their numbers count in the order of reading.
local function flatten(cell, into)
  if not wire.is_list(cell) then
    into[#into + 1] = cell
    return into
  end
  for _, inner in ipairs(cell) do flatten(inner, into) end
  return into
end

local function sorted_names(object)
  local names = {}
  for name in pairs(object) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function record_cells(record)
  local cells = {}
  for place, name in ipairs(sorted_names(record)) do cells[place] = record[name] end
  return cells
end

local function row_cells(row)
  if wire.is_object(row) then return record_cells(row) end
  return flatten(row, {})
end

local function predict_rows(rows, what)
  if not wire.is_list(rows) then return wire.bad_request("Bad request: %s must be a list of rows.", what) end
  local predictions = json.array {}
  for index, row in ipairs(rows) do predictions[index] = predict(row_cells(row)) end
  return predictions
end

-- The places of columns in the order of their names.
local function column_order(columns)
  local order = {}
  for place = 1, #columns do order[place] = place end
  table.sort(order, function(a, b) return tostring(columns[a]) < tostring(columns[b]) end)
  return order
end

local read = {}

function read.dataframe_split(frame)
  if type(frame) ~= "table" or not wire.is_list(frame.data) or not wire.is_list(frame.columns) then
    return wire.bad_request("Bad request: dataframe_split must be an object with the lists columns and data.")
  end
  local order, predictions = column_order(frame.columns), json.array {}
  for index, row in ipairs(frame.data) do
    if type(row) ~= "table" or #row ~= #order then
      return wire.bad_request("Bad request: row %d of dataframe_split has not %d columns.", index - 1, #order)
    end
    local cells = {}
    for place, at in ipairs(order) do cells[place] = row[at] end
    predictions[index] = predict(cells)
  end
  return predictions
end

function read.dataframe_records(records)
  if not wire.is_list(records) then
    return wire.bad_request("Bad request: dataframe_records must be a list.")
  end
  for index, record in ipairs(records) do
    if not wire.is_object(record) then
      return wire.bad_request("Bad request: dataframe_records[%d] must be an object.", index - 1)
    end
  end
  return predict_rows(records, "dataframe_records")
end

function read.instances(instances) return predict_rows(instances, "instances") end

-- Columns by name, each a list of values or one value; or a tensor whose first dimension is the rows.
function read.inputs(inputs, body)
  for key in pairs(body) do
    if not beside_inputs[key] then
      return wire.bad_request("Bad request: nothing may stand beside inputs, but there is %q.", key)
    end
  end
  if type(inputs) ~= "table" then inputs = { inputs } end
  if wire.is_list(inputs) then return predict_rows(inputs, "inputs") end
  local rows = json.array {}
  for place, name in ipairs(sorted_names(inputs)) do
    local column = inputs[name]
    if not wire.is_list(column) then column = { column } end
    if place > 1 and #column ~= #rows then
      return wire.bad_request("Bad request: the columns of inputs differ in length.")
    end
    for index, cell in ipairs(column) do
      rows[index] = rows[index] or {}
      rows[index][place] = cell
    end
  end
  return predict_rows(rows, "inputs")
end

---Answers a request with a table in it.
---@param body table exactly one of `dataframe_split`, `dataframe_records`, `inputs`, `instances`
---@return sluice.emulator.answer|nil answer `{ json = { predictions = {...} } }`
---@return sluice.emulator.refusal|nil
function tabular.answer(body)
  local key, count = nil, 0
  for _, name in ipairs(keys) do
    if wire.given(body[name]) ~= nil then key, count = name, count + 1 end
  end
  if count ~= 1 then
    return wire.bad_request(
      "Invalid input. The input must be a JSON dictionary with exactly one of the input fields "
        .. "'dataframe_split', 'dataframe_records', 'inputs', 'instances'; this one has %d.", count)
  end
  local predictions, refusal = read[key](body[key], body)
  if not predictions then return nil, refusal end
  return { json = { predictions = predictions } }
end

return tabular
