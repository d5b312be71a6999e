-- SPDX-License-Identifier: MIT
-- The emulator's state file: what was answered is there after a kill -9, at whatever point it came.

local caller = require "emulator_caller"
local emulator = require "sluice.emulator"
local http = require "sluice.http"
local journal = require "sluice.emulator.journal"
local json = require "sluice.json"
local support = require "support"
local task = require "sluice.task"

local management <const> = caller.management

-- Runs f with the path of a state file that is not there yet.
local function with_state(f)
  return support.with_file("", function(path)
    os.remove(path)
    local ok, err = pcall(f, path)
    os.remove(path .. ".new")
    if not ok then error(err, 0) end
  end)
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

describe("a state file", function()
  it("brings everything of an endpoint back", function()
    with_state(function(path)
      local call, emulated = caller.start { deploy_time = 0, state = path }
      local made = caller.create(call, "e", { caller.entity "echo" }, { tags = { { key = "a",
        value = "b" } } })
      caller.create(call, "gone", { caller.entity "echo" })
      call("DELETE", management .. "/gone")
      local acl = { access_control_list = { { user_name = "ann", permission_level = "CAN_QUERY" } } }
      call("PATCH", "/api/2.0/permissions/serving-endpoints/" .. made.id, acl)
      call("PUT", management .. "/e/config", { served_entities = { caller.entity "ngram" } })
      local before = call("GET", management .. "/e").body
      local permissions = call("GET", "/api/2.0/permissions/serving-endpoints/" .. made.id):json()
      emulated.journal:close()

      local again = caller.start { deploy_time = 0, state = path }
      assert.same(json.decode(before), again("GET", management .. "/e"):json())
      assert.same(permissions, again("GET", "/api/2.0/permissions/serving-endpoints/" .. made.id):json())
      assert.equal(404, again("GET", management .. "/gone").status)
      assert.equal(1, #again("GET", management):json().endpoints)
    end)
  end)

  it("lets a deployment go on while nothing runs", function()
    with_state(function(path)
      task.simulate(function()
        local call = caller.start { deploy_time = 60, state = path }
        caller.create(call, "e", { caller.entity "echo" })
        task.sleep(30)
        local again = caller.start { deploy_time = 60, state = path }
        assert.equal("NOT_READY", again("GET", management .. "/e"):json().state.ready)
        task.sleep(30)
        local late = caller.start { deploy_time = 60, state = path }
        assert.equal("READY", late("GET", management .. "/e"):json().state.ready)
      end)
    end)
  end)

  it("loses half a line at its end, and no other", function()
    with_state(function(path)
      local call = caller.start { deploy_time = 0, state = path }
      caller.create(call, "one", { caller.entity "echo" })
      caller.create(call, "two", { caller.entity "echo" })
      local text = support.read_file(path)
      local first = text:find("\n", 1, true)
      for _, cut in ipairs { first + 1, first + 20, #text - 1 } do
        write(path, text:sub(1, cut))
        local again = caller.start { deploy_time = 0, state = path }
        assert.equal(200, again("GET", management .. "/one").status)
        assert.equal(404, again("GET", management .. "/two").status)
        assert.equal(text:sub(1, first), support.read_file(path))
      end
    end)
  end)

  it("that is none is refused, with the line", function()
    with_state(function(path)
      for _, line in ipairs { "{", "5", '{"put":{"name":"e"}}', '{"delete":5}' } do
        write(path, '{"delete":"x"}\n' .. line .. "\n")
        local none, err = emulator.new { state = path }
        assert.is_nil(none)
        assert.equal("ConfigError", err.kind)
        assert.matches("line 2 is no change", err.message)
      end
    end)
    local none, err = emulator.new { state = "/nonexistent/state" }
    assert.is_nil(none)
    assert.matches("No such file", err.message)
  end)

  it("does not grow without end (journal.open)", function()
    with_state(function(path)
      local kept = assert(journal.open(path))
      for index = 1, 2100 do kept:put { name = "e", id = "1", index = index } end
      kept:put { name = "f", id = "2" }
      kept:delete "f"
      kept:close()
      local count = select(2, support.read_file(path):gsub("\n", ""))
      assert.is_true(count < 150, tostring(count))
      assert.same({ { name = "e", id = "1", index = 2100 } }, assert(journal.open(path)).records)
    end)
  end)

  it("is no device and no pipe", function()
    local none, err = journal.open "/dev/null"
    assert.is_nil(none)
    assert.same({ "ConfigError", "it is no regular file" }, { err.kind, err.message })
    assert(os.execute "test -c /dev/null")
  end)

  it("is written anew after a write that failed", function()
    if not io.open("/dev/full", "ab") then return pending "there is no /dev/full" end
    with_state(function(path)
      local kept = assert(journal.open(path))
      local file = kept.file
      kept.file = assert(io.open("/dev/full", "ab"))
      local ok, err = pcall(kept.put, kept, { name = "e", id = "1" })
      assert.is_false(ok)
      assert.matches("No space left", err.message)
      file:close()
      kept:put { name = "f", id = "2" }
      assert.equal(2, #assert(journal.open(path)).records)
    end)
  end)
end)

support.needing("server", describe, pending)("an emulator that is killed", function()
  -- Starts the command with a state file; gives its URL and process id.
  local function launch(path, out)
    write(out, "")
    local words = ("%s emulate --deploy-time 0 --state %s >%s 2>/dev/null & echo $!"):format(
      support.quote(support.binary), support.quote(path), support.quote(out))
    local pipe = assert(io.popen(words))
    local pid = pipe:read "l"
    pipe:close()
    for _ = 1, 500 do
      local url = support.read_file(out):match "(http://[%d.:]+)\n"
      if url then return url, pid end
      task.sleep(0.01)
    end
    error "the emulator did not start"
  end

  local function kill(pid) os.execute("kill -9 " .. pid) end

  local function request(url, method, path, body)
    return http.request {
      method = method, url = url .. path, json = body, headers = { authorization = "Bearer x" },
      timeout = { total = 5 },
    }
  end

  -- Creates, changes and deletes an endpoint of its own until the server is gone. Of each step it notes what is known
  -- to be there, and what may be.
  local function disturb(url, name, note)
    local steps = {
      { "POST", management, { name = name, config = { served_entities = { caller.entity "echo" } } }, "1" },
      { "PUT", management .. "/" .. name .. "/config", { served_entities = { caller.entity "ngram" } }, "2" },
      { "DELETE", management .. "/" .. name, nil, "none" },
    }
    while true do
      for _, step in ipairs(steps) do
        note.may = step[4]
        local res = request(url, step[1], step[2], step[3])
        if not res or res.status ~= 200 then return end
        note.known = step[4]
      end
    end
  end

  it("at random points has all that it answered", function()
    with_state(function(path)
      support.with_file("", function(out)
        local total = 0
        for round = 1, 8 do
          local url, pid = launch(path, out)
          local notes = {}
          task.scope(function(scope)
            for index = 1, 4 do
              notes[index] = { name = ("r%d-%d"):format(round, index), known = "none" }
              scope:spawn(disturb, url, notes[index].name, notes[index])
            end
            task.sleep(0.02 + math.random() * 0.08)
            kill(pid)
          end)
          url, pid = launch(path, out)
          for _, note in ipairs(notes) do
            local res = assert(request(url, "GET", management .. "/" .. note.name))
            local there = res.status == 404 and "none" or tostring(res:json().config.config_version)
            assert.is_true(there == note.known or there == note.may,
              ("%s: %s is there, known was %s, begun was %s"):format(note.name, there, note.known, note.may))
            if note.may ~= note.known then total = total + 1 end
          end
          kill(pid)
        end
        assert.is_true(total > 0, "no kill came while something was under way")
      end)
    end)
  end)
end)
