-- SPDX-License-Identifier: MIT
-- runtime/examples/npc.c on a screen of its own (Xvfb), before an emulator of its own: what is on the picture
-- that it leaves, and what sluice took of its frames.

local fixture = require "server_fixture"
local http = require "sluice.http"
local support = require "support"

local PROGRAM <const> = support.is_rock and "" or support.build .. "/examples/npc"
local SCRIPT <const> = "runtime/examples/npc.lua"

local function can_run()
  local file = io.open(PROGRAM)
  if file then file:close() end
  return file and support.shell("command -v Xvfb").status == 0
end

local describe = support.about_program(support.needing("server", describe, pending), pending)
if not can_run() then
  local pending = pending
  describe = function(name)
    pending(name .. ": libsdl2-dev or xvfb is not installed (make deps-extra)", function() end)
  end
end

-- Runs a program while f(what it wrote first) runs.
local function beside(command, f)
  local pipe = io.popen("echo $$; exec setpriv --pdeathsig TERM " .. command .. " 2>/dev/null")
  local pid, _, first = pipe:read("n", "l", "l")
  local ok, message = xpcall(f, debug.traceback, first)
  os.execute(("kill %d"):format(pid))
  pipe:close()
  if not ok then error(message, 0) end
end

local function make_endpoint(url, name)
  local config = { served_entities = { { entity_name = "main.demo.rivers", entity_version = "1" } } }
  local res = fixture.need(http.request {
    method = "POST", url = url .. "/api/2.0/serving-endpoints", headers = { authorization = "Bearer any" },
    json = { name = name, config = config },
  })
  assert.are.equal(200, res.status)
end

-- The picture as a function of x and y (from the upper left), which gives red, green and blue.
local function read_picture(path)
  local bytes = support.read_file(path)
  local start = ("<I4"):unpack(bytes, 11)
  local width, height, _, bits = ("<i4i4I2I2"):unpack(bytes, 19)
  assert.same({ 960, 540, 32 }, { width, height, bits })
  return function(x, y)
    local at = start + ((height - 1 - y) * width + x) * 4 -- lines from below; blue, green, red, alpha
    return bytes:byte(at + 3), bytes:byte(at + 2), bytes:byte(at + 1)
  end
end

-- Points of a colour in a part of the picture.
local function count(picture, part, colour)
  local found = 0
  for y = part.top, part.bottom - 1 do
    for x = part.left, part.right - 1 do
      local red, green, blue = picture(x, y)
      if red == colour[1] and green == colour[2] and blue == colour[3] then found = found + 1 end
    end
  end
  return found
end

local MIRA_SAYS <const> = { left = 16, right = 464, top = 16, bottom = 240 }
local TOM_SAYS <const> = { left = 496, right = 944, top = 16, bottom = 240 }
local MIRA_THINKS <const> = { left = 16, right = 464, top = 250, bottom = 400 }
local TOM_THINKS <const> = { left = 496, right = 944, top = 250, bottom = 400 }
local INK <const>, PALE <const>, RED <const> = { 30, 30, 40 }, { 150, 150, 170 }, { 240, 90, 80 }

-- A letter is some 20 of the font's points, and 4 of the picture's each.
local TEN_LETTERS <const> = 10 * 20 * 4

local screen, emulator

-- Runs the game for so many frames; gives what the shell gave, and the picture.
local function play(frames, endpoint)
  return support.with_file("", function(path)
    local words = {
      "DISPLAY=:" .. screen, "SDL_VIDEODRIVER=x11 SDL_RENDER_DRIVER=software SDL_FRAMEBUFFER_ACCELERATION=0",
      "DATABRICKS_HOST=" .. emulator, "DATABRICKS_TOKEN=any NPC_ENDPOINT=" .. endpoint,
      "timeout 120", support.quote(PROGRAM), SCRIPT, "--measure", frames, support.quote(path),
    }
    return support.shell(table.concat(words, " ")), read_picture(path)
  end)
end

describe("a game whose characters talk", function()
  local function on_a_screen(what, f)
    it(what, function()
      beside("Xvfb -displayfd 1 -screen 0 1280x720x24 -nolisten tcp", function(display)
        beside(support.quote(support.binary) .. " emulate --deploy-time 0 --token-time 20", function(address)
          screen, emulator = assert(display), assert(address)
          f()
        end)
      end)
    end)
  end

  on_a_screen("shows what one says and the other thinks while it comes", function()
    make_endpoint(emulator, "characters")
    local result, picture = play(50, "characters")
    assert.are.equal("", result.err)
    assert.are.equal(0, result.status)
    assert.is_true(count(picture, MIRA_SAYS, INK) > TEN_LETTERS)
    assert.is_true(count(picture, TOM_THINKS, PALE) > TEN_LETTERS)
    assert.same({ 0, 0 }, { count(picture, TOM_SAYS, INK), count(picture, MIRA_THINKS, PALE) })
  end)

  on_a_screen("draws 60 frames a second, whatever sluice does", function()
    make_endpoint(emulator, "characters")
    local result, picture = play(260, "characters")
    assert.are.equal("", result.err)
    assert.are.equal(0, result.status)
    assert.is_true(count(picture, MIRA_SAYS, INK) > TEN_LETTERS)
    assert.is_true(count(picture, TOM_SAYS, INK) > TEN_LETTERS)
    local rate = tonumber(result.out:match "260 frames, ([%d.]+) a second")
    assert.is_true(rate < 62, result.out)
    local longest = tonumber(result.out:match "on the processor: .- max ([%d.]+) ms")
    local memory = tonumber(result.out:match "([%d.]+) MB more now")
    assert.matches("\nframe: p50 [%d.]+ ms, p99 [%d.]+ ms, max [%d.]+ ms\n", result.out)
    assert.matches("share of sluice_pump: [%d.]+ %%\n", result.out)
    if os.getenv "SLUICE_SLOW" then return end
    assert.is_true(longest < 20 and memory < 8, result.out)
    assert.matches("frames over 20 ms because of sluice: 0\n", result.out)
  end)

  on_a_screen("goes on when its script cannot, and says why", function()
    local result, picture = play(30, "nowhere")
    assert.are.equal(1, result.status)
    assert.matches("npc: stream endpoint nowhere: ", result.err)
    assert.is_true(count(picture, MIRA_THINKS, RED) > TEN_LETTERS)
  end)

  it("says how it is called", function()
    local result = support.shell(support.quote(PROGRAM))
    assert.same({ 2, "" }, { result.status, result.out })
    assert.matches("usage: npc SCRIPT.lua", result.err)
  end)
end)
