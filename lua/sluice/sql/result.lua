-- SPDX-License-Identifier: MIT
-- The rows of a statement, chunk after chunk: one of them is held at a time.

local cells = require "sluice.sql.cells"
local errors = require "sluice.errors"
local json = require "sluice.json"
local meta = require "sluice.meta"

local result = {}

---A column of a result.
---@class sluice.SqlColumn
---@field name string one that comes twice gets a number: "count_2"
---@field type string "BIGINT", "STRING", ...
---@field text string? the type in full: "MAP<STRING,STRING>"
---@field precision integer?
---@field scale integer?

---The result of a statement. Its rows can be read once.
---@class sluice.SqlResult
---@field statement_id string
---@field columns sluice.SqlColumn[]
---@field row_count integer? of all chunks, where the server says
---@field truncated boolean whether a limit cut rows off
local methods = {}
local metatable = { __name = "sluice.sql.result", __index = methods }

function metatable.__tostring(self)
  return ("sluice.sql.result: %s, %d columns, %s rows"):format(self.statement_id, #self.columns,
    tostring(self.row_count or "?"))
end

local function broken(self, text, ...)
  return nil, errors.new("ProtocolError", {
    operation = "read SQL result", object = self.statement_id, message = text:format(...),
  })
end

-- Takes what an answer has of the rows: those of one chunk, or links to them.
local function take(self, data)
  self._at = 1
  local rows = data.data_array
  self._rows = type(rows) == "table" and rows or {}
  self._links = type(data.external_links) == "table" and data.external_links or {}
  self._link_at = 1
  local last = self._links[#self._links] or data
  local following = math.tointeger(tonumber(last.next_chunk_index))
  if following and self._next and following <= self._next then
    return broken(self, "chunk %d says that %d comes next", self._next, following)
  end
  self._next = following
  return true
end

---A result of an answer whose state is SUCCEEDED.
---@param source { chunk: fun(id: string, index: integer): table?, sluice.Error?; download: fun(link: table): string?, sluice.Error? }
---@param answer table
---@return sluice.SqlResult?
---@return sluice.Error? err
function result.new(source, answer)
  local manifest = type(answer.manifest) == "table" and answer.manifest or {}
  local columns = cells.columns(manifest)
  local self = setmetatable({
    statement_id = answer.statement_id,
    columns = columns,
    row_count = math.tointeger(tonumber(manifest.total_row_count)),
    truncated = manifest.truncated == true,
    _source = source,
    _columns = {},
  }, metatable)
  for index, column in ipairs(columns) do
    self._columns[index] = { name = column.name, type = column.type, read = cells.reader(column) }
  end
  meta.set(self, meta.get(answer))
  local ok, err = take(self, type(answer.result) == "table" and answer.result or {})
  if not ok then return nil, err end
  return self
end

-- A link that has expired is asked for anew, once.
local function download(self, link, is_again)
  local text, err = self._source.download(link)
  if text then return text end
  local index = math.tointeger(tonumber(link.chunk_index))
  local is_stale = index and not is_again and errors.is(err) and (err.status == 403 or err.status == 404)
  if not is_stale then return nil, err end
  local data, failure = self._source.chunk(self.statement_id, index)
  if not data then return nil, failure end
  local fresh = type(data.external_links) == "table" and data.external_links[1]
  if not fresh then return nil, err end
  return download(self, fresh, true)
end

local function follow_link(self)
  local link = self._links[self._link_at]
  self._link_at = self._link_at + 1
  local text, err = download(self, link, false)
  if not text then return nil, err end
  local rows, fault = json.decode(text)
  if type(rows) ~= "table" then
    return broken(self, "what a link leads to is no list of rows: %s", fault and fault.message or type(rows))
  end
  self._rows, self._at = rows, 1
  return true
end

-- Gets the next rows: false where there are none.
local function advance(self)
  if self._link_at <= #self._links then return follow_link(self) end
  if not self._next then return false end
  local data, err = self._source.chunk(self.statement_id, self._next)
  if not data then return nil, err end
  return take(self, data)
end

---The next row, by the names of the columns; NULL is nil. May wait for the next chunk.
---@return table<string, any>? row nil at the end
---@return sluice.Error? err
function methods:next()
  if self._err then return nil, self._err end
  while self._at > #self._rows do
    local ok, err = advance(self)
    if not ok then
      self._err, self._rows = err, {}
      return nil, err
    end
  end
  local texts = self._rows[self._at]
  self._at = self._at + 1
  if type(texts) ~= "table" then return broken(self, "a row is a %s and no list", type(texts)) end
  return cells.row(self._columns, texts)
end

---Iterates over the rows. Raises what goes wrong. May wait for the next chunk.
---@return fun(): table<string, any>?
function methods:rows()
  return function()
    local row, err = self:next()
    if err then error(err, 0) end
    return row
  end
end

---All rows that are left. Waits.
---@return table<string, any>[]? rows
---@return sluice.Error? err
function methods:collect()
  local list = {}
  while true do
    local row, err = self:next()
    if err then return nil, err end
    if not row then return list end
    list[#list + 1] = row
  end
end

return result
