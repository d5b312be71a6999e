-- SPDX-License-Identifier: MIT
-- A small language model: words in context of the two words before, trained on emulator/corpus.lua
-- at the first query (a few milliseconds).
--
-- Order 3 with absolute discounting: each context gives a part of its weight to the next lower order, so that the
-- model does not only recite. A context that was never seen falls back to the lower order altogether. Words of the
-- prompt weigh more, so that an answer has to do with its question.

local random = require "sluice.random"
local tokens = require "sluice.emulator.tokens"

local ngram = {}

local discount <const> = 0.3 -- taken from each count and given to the lower order; more is livelier and less grammatical
local topic_weight <const> = 6 -- how much more a word counts that the prompt holds
local repeat_weight <const> = 0.1 -- for a pair of words that the answer holds already: the likeliest words go in circles
local topic_length <const> = 4 -- shorter words of the prompt ("the", "is") say nothing about its topic
local answer_least <const> = 12 -- tokens before a paragraph may end: no answer of two words
local answer_sentences <const> = 3 -- an answer ends after this many sentences, or where a paragraph did

---Tokens when the request sets no max_tokens.
---@type integer
ngram.default_max_tokens = 256

local closing = { ["."] = true, [","] = true, [";"] = true, [":"] = true, ["?"] = true, ["!"] = true }
local sentence_end = { ["."] = true, ["?"] = true, ["!"] = true }

-- The edge of a paragraph is a token too: what follows it can begin a text, and choosing it ends one.
local edge <const> = "\n"

local function context_key(a, b) return a .. "\0" .. b end

local function add(counts, context, word)
  local entry = counts[context]
  if not entry then
    entry = { total = 0, words = {}, count = {} }
    counts[context] = entry
  end
  if not entry.count[word] then
    entry.count[word] = 0
    entry.words[#entry.words + 1] = word
  end
  entry.count[word] = entry.count[word] + 1
  entry.total = entry.total + 1
end

local function train_paragraph(model, paragraph)
  local before, previous = edge, edge
  local function learn(word)
    add(model.three, context_key(before, previous), word)
    add(model.two, previous, word)
    add(model.one, "", word)
    before, previous = previous, word
  end
  for token in tokens.each(paragraph) do
    local word = token:match("%S+")
    learn(word)
    -- A sentence may also begin a text, whatever stood before it.
    if sentence_end[word] then before = edge end
  end
  learn(edge)
end

---Counts the words of a text, paragraph by paragraph.
---@param text string paragraphs are parted by empty lines
---@return table model
function ngram.train(text)
  local model = { one = {}, two = {}, three = {}, known = {} }
  for paragraph in (text .. "\n\n"):gmatch("(.-)\n%s*\n") do
    if paragraph:find("%S") then train_paragraph(model, paragraph) end
  end
  return model
end

-- Interpolated weights of the words that may follow: words[i] has the probability weights[i].
local function distribution(model, before, previous)
  local words, weights, place = {}, {}, {}
  local mass = 1
  local function blend(entry, last)
    if not entry then return end
    local held = last and 0 or discount
    for _, word in ipairs(entry.words) do
      local at = place[word]
      if not at then
        at = #words + 1
        place[word], words[at], weights[at] = at, word, 0
      end
      weights[at] = weights[at] + mass * (entry.count[word] - held) / entry.total
    end
    mass = mass * held * #entry.words / entry.total
  end
  blend(model.three[context_key(before, previous)])
  blend(model.two[previous], true)
  if #words == 0 then blend(model.one[""], true) end
  return { words = words, weights = weights }
end

-- Distributions do not change after the training, so each is worked out once.
local function following(model, before, previous)
  local key = context_key(before, previous)
  local known = model.known[key]
  if not known then
    known = distribution(model, before, previous)
    model.known[key] = known
  end
  return known.words, known.weights
end

local function greatest(words, weights)
  local best = 1
  for at = 2, #words do
    if weights[at] > weights[best] then best = at end
  end
  return words[best]
end

-- Takes the weight from all but the likeliest words, which together reach the share `top_p`.
local function keep_nucleus(weights, top_p)
  local order, total = {}, 0
  for at, weight in ipairs(weights) do
    order[at], total = at, total + weight
  end
  table.sort(order, function(a, b)
    if weights[a] ~= weights[b] then return weights[a] > weights[b] end
    return a < b
  end)
  local sum = 0
  for rank, at in ipairs(order) do
    if rank > 1 and sum >= top_p * total then
      weights[at] = 0
    else
      sum = sum + weights[at]
    end
  end
end

local function draw(words, weights, next_random)
  local total = 0
  for at = 1, #words do total = total + weights[at] end
  local left = next_random() * total
  for at = 1, #words do
    left = left - weights[at]
    if left < 0 then return words[at] end
  end
  return greatest(words, weights)
end

-- The words of a prompt that are its topic. The reply to a question about locks should be about locks.
local function topic_of(prompt)
  local topic = {}
  for token in tokens.each(prompt) do
    local word = token:match("%S+"):lower()
    if #word >= topic_length then
      topic[word] = true
      topic[word:gsub("s$", "")] = true
    end
  end
  return topic
end

local function last_words(prompt)
  local before, previous = edge, edge
  for token in tokens.each(prompt) do before, previous = previous, token:match("%S+") end
  return before, previous
end

-- A state of generation: where the text stands and what the request asks of it.
local function start(model, request)
  local state = {
    model = model,
    temperature = request.temperature,
    top_p = request.top_p,
    ignore_end = request.ignore_eos,
    topic = {},
    random = random.new(request.seed),
    before = edge,
    previous = edge,
    first = true,
    length = 0,
    sentences = 0,
    pairs = {},
  }
  if request.kind == "completion" then
    state.before, state.previous = last_words(request.text)
  else
    state.topic = topic_of(request.text)
  end
  -- A completion of unknown or empty words begins a text instead of continuing one.
  if not model.two[state.previous] then state.before, state.previous = edge, edge end
  state.first = state.previous == edge
  return state
end

-- What the request makes of the weights: its topic, no repetition, its temperature.
local function adjusted(state, words, weights)
  local out, power = {}, state.temperature > 0 and 1 / state.temperature or 1
  local said = state.pairs[state.previous]
  for at = 1, #words do
    local word, weight = words[at], weights[at]
    if state.topic[word] then weight = weight * topic_weight end
    if said and said[word] then weight = weight * repeat_weight ^ said[word] end
    out[at] = power == 1 and weight or weight ^ power
  end
  return out
end

local function choose(state)
  local words, weights = following(state.model, state.before, state.previous)
  weights = adjusted(state, words, weights)
  if state.temperature == 0 then return greatest(words, weights) end
  if state.top_p < 1 then keep_nucleus(weights, state.top_p) end
  return draw(words, weights, state.random)
end

local function remember(state, word)
  local said = state.pairs[state.previous]
  if not said then
    said = {}
    state.pairs[state.previous] = said
  end
  said[word] = (said[word] or 0) + 1
  state.topic[word] = nil -- said once is enough
end

local function next_piece(state)
  if state.sentences >= answer_sentences and not state.ignore_end then return nil, "stop" end
  local word = choose(state)
  if word == edge then
    if not state.ignore_end and state.length >= answer_least then return nil, "stop" end
    state.before, state.previous = edge, edge
    word = choose(state)
  end
  local piece = (state.first or closing[word]) and word or " " .. word
  state.first = false
  state.length = state.length + 1
  remember(state, word)
  state.before, state.previous = state.previous, word
  if sentence_end[word] then
    state.before = edge
    state.sentences = state.sentences + 1
  end
  return piece
end

local trained

---Begins an answer.
---@param request table `kind` ("chat" or "completion"), `text` (the prompt), `temperature` (0 takes the likeliest word), `top_p`, `seed`, `ignore_eos`
---@return fun(): string|nil, string|nil next the next piece of text; at the end `nil` and the finish reason
function ngram.generate(request)
  trained = trained or ngram.train(require "sluice.emulator.corpus")
  local state = start(trained, request)
  return function() return next_piece(state) end
end

return ngram
