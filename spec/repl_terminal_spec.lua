-- SPDX-License-Identifier: MIT
-- The REPL on a terminal: tmux types, and what its screen then shows is compared.

local support = require "support"
local describe = support.about_program(describe, pending)
local task = require "sluice.task"

local has_tmux = os.execute "command -v tmux >/dev/null"

local PATIENCE <const> = 8 -- seconds: a loaded machine is slow, and a spec that passes does not wait
local POLL <const> = 0.05

local folder, server

local function tmux(format, ...)
  local command = ("tmux -L %s -f /dev/null %s 2>&1"):format(server, format:format(...))
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

-- What the screen shows, without the blanks at the ends of lines and of the screen.
local function screen()
  return (tmux("capture-pane -p"):gsub("[ ]+\n", "\n"):gsub("%s+$", ""))
end

-- Waits until the screen ends like this (a plain text); gives the screen.
local function wait_for(text)
  local shown
  for _ = 1, PATIENCE / POLL do
    shown = screen()
    if shown:sub(-#text) == text then return shown end
    task.sleep(POLL)
  end
  assert.equal(text, shown)
end

local function wait_until(is_so, what)
  for _ = 1, PATIENCE / POLL do
    if is_so() then return end
    task.sleep(POLL)
  end
  error("waited too long for " .. what, 2)
end

local function type_text(text)
  tmux("send-keys -l %s", support.quote(text))
end

local function press(...)
  tmux("send-keys %s", table.concat({ ... }, " "))
end

local function enter(text)
  type_text(text)
  press "Enter"
end

-- Starts the REPL on a new screen; `given` may have columns, rows, words, and more of the environment.
local function start(given)
  given = given or {}
  local environment = ("HOME=%s XDG_STATE_HOME=%s/state LANG=C.UTF-8 %s"):format(folder, folder,
    given.environment or "")
  local binary = support.quote(support.binary)
  local command = ("env %s %s %s; echo status $?; sleep 60"):format(environment, binary, given.words or "")
  tmux("new-session -d -x %d -y %d %s", given.columns or 60, given.rows or 20, support.quote(command))
  wait_for(given.prompt or "leaves.\n>")
end

-- Ends it with its terminal; a new server needs the old one to be gone.
local function leave()
  tmux "kill-server"
  wait_until(function() return not tmux("list-sessions"):find "windows" end, "the end of tmux")
  server = server .. "n"
end

local describe_here = has_tmux and describe or function(name)
  pending(name .. ": no tmux here", function() end)
end

describe_here("the REPL on a terminal", function()
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
    server = "sluice" .. folder:match "[^/]+$"
  end)

  after_each(function()
    tmux "kill-server"
    os.execute("rm -rf " .. folder)
  end)

  it("shows results and goes on with an entry that is not whole", function()
    start()
    enter "1 + 1"
    wait_for "> 1 + 1\n2\n>"
    enter "for i = 1, 2 do"
    wait_for ">>"
    enter "print(i)" -- what comes before its prompt the terminal echoes by itself
    wait_for ">> print(i)\n>>"
    enter "end"
    wait_for "> for i = 1, 2 do\n>> print(i)\n>> end\n1\n2\n>"
    press "C-d"
    wait_for "status 0"
  end)

  it("edits, and brings back what was entered, by lines and whole", function()
    start()
    enter "abc = 12"
    enter "f = function()"
    enter "end"
    wait_for ">> end\n>"
    press("Up")
    wait_for "> f = function()\nend"
    press("Up")
    wait_for "> abc = 12"
    press("Home", "x", "End", "BSpace", "3", "Left", "Left", "C-d")
    wait_for "> xabc = 3"
    press "C-r"
    type_text "func"
    wait_for "(search `func') f = function()\nend"
    press "C-g"
    wait_for "> xabc = 3"
    press "Enter"
    enter "xabc"
    wait_for "> xabc\n3\n>"
  end)

  it("shows nothing of what was taken away, where Ctrl-C drops the line", function()
    start()
    enter "x = 'a long line'"
    type_text "abc"
    press("C-u")
    wait_for "> x = 'a long line'\n>"
    press("C-c")
    wait_for "> x = 'a long line'\n> ^C\n>"
  end)

  it("completes with Tab, and lists above the line", function()
    start { columns = 80 }
    type_text "sluice.ta"
    press "Tab"
    wait_for "> sluice.task"
    type_text ".sh"
    press "Tab"
    wait_for "> sluice.task.shield"
    press("C-u")
    type_text "sluice.task.s"
    press "Tab"
    local listed = "scope      semaphore  set_local  shield     simulate   sleep      spawn"
    wait_for("> sluice.task.s\n" .. listed .. "\n> sluice.task.s")
    type_text "leep(0)"
    press "Enter"
    wait_for "> sluice.task.sleep(0)\n>"
  end)

  it("leaves the line being typed whole when others write", function()
    start()
    enter "task = sluice.task"
    enter "t = task.spawn(function() for i = 1, 2 do task.sleep(1) io.write(i, ' ') end print '\\nend' end)"
    type_text "answer = 'a long line that goes around the end of the screen'"
    press("Home", "Right")
    wait_for "\n1\n> answer = 'a long line that goes around the end of the scre\nen'"
    wait_for "\n1 2\nend\n> answer = 'a long line that goes around the end of the scre\nen'"
    press "Enter"
    enter "#answer"
    wait_for "> #answer\n50\n>"
  end)

  it("shows progress bars above the line, and output above them", function()
    start { columns = 50 }
    enter "bar = sluice.progress.bar { total = 4, label = 'work' }"
    enter "sluice.task.sleep(0.2) bar:add(1)"
    type_text "print 'x'"
    wait_until(function() return screen():find "work  25%% [^\n]* 1/4[^\n]*\n> print 'x'$" end, "the bar")
    press "Enter"
    wait_until(function()
      return screen():find "> print 'x'\nx\nwork  25%% [^\n]* 1/4[^\n]*\n>$"
    end, "the bar below the output")
    enter "bar:add(3) bar:close()"
    local last = "bar:close%(%)\nwork 100%% [^\n]* 4/4[^\n]*\n>$"
    wait_until(function() return screen():find(last) end, "the end")
  end)

  it("drops the line with Ctrl-C, or stops what it started, and stays", function()
    start()
    type_text "abc"
    press "C-c"
    wait_for "> abc^C\n>"
    enter "sluice.task.sleep(100)"
    task.sleep(0.2)
    press "C-c"
    wait_for "interrupted\n>"
    enter "while true do end"
    task.sleep(0.2)
    press "C-c"
    wait_for "interrupted\n>"
    enter "sluice.task.shield(sluice.task.sleep, 3)"
    task.sleep(0.2)
    press "C-c"
    task.sleep(0.2)
    press "C-c"
    wait_until(function() return screen():find "entry 3 goes on, behind the prompt\n>$" end, "the prompt")
    enter "1"
    wait_for "> 1\n1\n>"
  end)

  it("leaves for a Ctrl-D that was typed while an entry ran", function()
    start()
    enter "sluice.task.sleep(0.5)"
    task.sleep(0.1)
    press "C-d"
    wait_for "status 0"
  end)

  it("says what still runs when it is left", function()
    start()
    enter "t = sluice.task.spawn(sluice.task.sleep, 100)"
    wait_for "\n>"
    press "C-d"
    wait_until(function()
      return screen():find("still running, and cancelled now:\nentry 1: t = sluice", 1, true)
    end, "the list")
    wait_for "status 0"
  end)

  it("keeps a history for its owner, and not what begins with a blank", function()
    start()
    enter "first = 1"
    enter " secret = 2"
    enter "x = [[a"
    enter "b]]"
    wait_for ">> b]]\n>"
    press "C-d"
    wait_for "status 0"
    assert.equal("first = 1\nx = [[a\\nb]]\n", support.read_file(folder .. "/state/sluice/history"))
    local modes = support.shell(("cd %s/state/sluice && stat -c %%a history ."):format(folder))
    assert.equal("600\n700\n", modes.out)
    leave()
    start()
    press("Up")
    wait_for "> x = [[a\nb]]"
    press("Up")
    wait_for "> first = 1"
  end)

  it("says once that the history cannot be kept", function()
    start { environment = "XDG_STATE_HOME=/dev/null/x" }
    local told = "the history is not kept: /dev/null/x/sluice/history: Not a directory"
    assert.matches(told, screen():gsub("\n", ""), 1, true)
    enter "1"
    wait_for "> 1\n1\n>"
    assert.equal(1, select(2, screen():gsub("not kept", "")))
  end)

  it("gives lines to a terminal that can only show them", function()
    start { environment = "TERM=dumb" }
    enter "1 + 1"
    wait_for "> 1 + 1\n2\n>"
    enter "t = sluice.task.spawn(function() sluice.task.sleep(0.2) print 'behind' end)"
    wait_for "\nbehind\n>"
    enter "sluice.task.sleep(100)"
    task.sleep(0.2)
    press "C-c"
    wait_for "interrupted\n>"
    press "C-d"
    wait_for "status 0"
  end)

  it("does without the library for editing, and says so", function()
    assert(os.execute(("touch %s/libedit.so.2"):format(folder)))
    start { columns = 100, environment = "LD_LIBRARY_PATH=" .. folder }
    assert.matches("sluice: lines cannot be edited: .*libedit.so.2: file too short", screen())
    enter "1 + 1"
    wait_for "> 1 + 1\n2\n>"
  end)

  it("draws the line again when the screen changes, or the program was stopped", function()
    start()
    type_text "abc = 'a line that is longer than the narrow screen'"
    tmux "resize-window -x 30 -y 20"
    task.sleep(0.3)
    type_text " "
    wait_for "abc = 'a line that is longer\n than the narrow screen'"
    leave()
    start { words = "", environment = "bash -mc 'trap : TSTP; " .. support.binary .. "; fg; true'; true" }
    type_text "abc"
    press "C-z"
    wait_until(function() return select(2, screen():gsub("abc", "")) >= 2 end, "the line again")
    type_text " = 5"
    press "Enter"
    enter "abc"
    wait_for "> abc\n5\n>"
  end)

  it("ends when the terminal goes away, and unwinds", function()
    start { words = "" }
    local path = folder .. "/closed"
    enter(("x = sluice.task.spawn(function() local f <close> = setmetatable({}, { __close = function() "
      .. "io.open(%q, 'w'):close() end }) sluice.task.sleep(100) end)"):format(path))
    wait_until(function() return screen():find "\n>$" end, "the prompt")
    leave()
    wait_until(function()
      local file <close> = io.open(path)
      return file
    end, "the end of the task")
  end)
end)

support.needing("server", describe_here, pending)("the REPL with an emulator", function()
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
    server = "sluice" .. folder:match "[^/]+$"
  end)

  after_each(function()
    tmux "kill-server"
    os.execute("rm -rf " .. folder)
  end)

  it("shows a stream as it comes, and where the time of the request went", function()
    start { words = "--emulator", columns = 100 }
    enter "w = sluice.workspace()"
    enter("model = { entity_name = 'main.demo.rivers', entity_version = '1', workload_size = 'Small', "
      .. "scale_to_zero_enabled = true }")
    enter "w.serving_endpoints:create_and_wait { name = 'a', config = { served_entities = { model } } }"
    enter "chat = w:endpoint 'a'"
    enter "chat:stream { messages = { { role = 'user', content = 'What is a sluice?' } } }"
    wait_until(function() return screen():find "sluice%?' } } }\n%u[^\n]+.*\n>$" end, "the answer")
    enter ":trace"
    local request = "POST http://127.0.0.1:%d+/serving%-endpoints/a/invocations: 200"
    wait_until(function() return screen():find(request) end, "the trace")
  end)
end)
