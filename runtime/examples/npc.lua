-- SPDX-License-Identifier: MIT
-- What the two characters of npc.c say: each turn one of them answers the other, who thinks meanwhile.
-- Both are streams; every piece goes to the game as it comes, over its functions `say` and `think`.

local host = require "sluice.host"
local sluice = require "sluice"
local task = require "sluice.task"

local TURNS <const> = 20
local PAUSE <const> = 1 -- seconds between two turns, to read the end

local cast = {
  { number = 1, nature = "You are Mira, who minds the lock in a village by a river." },
  { number = 2, nature = "You are Tom, the miller of a village by a river, who worries about the water." },
}

-- An endpoint of a workspace, or of any server that speaks OpenAI's API.
local function endpoint()
  local name = os.getenv "NPC_ENDPOINT" or "characters"
  if os.getenv "OPENAI_BASE_URL" then return sluice.openai { model = name } end
  return assert(sluice.workspace()):endpoint(name)
end

local voice = sluice.pipeline(endpoint(), {
  sluice.layers.retry { attempts = 3 }, -- until the first word
  sluice.layers.timeout { first_event = 30, idle = 10 },
})

-- The conversation as one of them sees it: what the other says is the user's.
local function messages_of(character, history, question)
  local messages = {
    { role = "system", content = character.nature .. " Answer in one or two short sentences." },
    { role = "user", content = "Mira and Tom meet at the lock. Good morning!" },
  }
  for _, line in ipairs(history) do
    messages[#messages + 1] = { role = line.who == character and "assistant" or "user", content = line.text }
  end
  messages[#messages + 1] = question and { role = "user", content = question } or nil
  return messages
end

-- Shows the answer piece by piece, always from its beginning, and returns it.
local function utter(show, character, messages)
  local stream <close> = assert(voice:stream { messages = messages, max_tokens = 40 })
  local text = ""
  for piece in stream:text() do
    text = text .. piece
    show(character.number, text)
  end
  return text
end

local history = {}
for turn = 1, TURNS do
  local speaker, listener = cast[2 - turn % 2], cast[1 + turn % 2]
  local question = "What do you think, and would not say? One short sentence."
  local thought = task.spawn(utter, host.think, listener, messages_of(listener, history, question))
  history[turn] = { who = speaker, text = utter(host.say, speaker, messages_of(speaker, history)) }
  thought:join()
  task.sleep(PAUSE)
end
