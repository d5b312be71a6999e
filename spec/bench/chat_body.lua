-- SPDX-License-Identifier: MIT
-- The small chat of the bench: a question of about 300 bytes, an answer of about 600.

local chat = {}

---The request as a Lua table; 312 bytes as JSON.
function chat.request()
  return {
    model = "my-served-model-2",
    messages = {
      { role = "system", content = "You are a terse assistant that answers in one sentence of plain words." },
      {
        role = "user",
        content = "What is a sluice, and why would somebody give that name to a program that sends"
          .. " requests to model endpoints?",
      },
    },
    temperature = 0.7,
    max_tokens = 128,
    stream = false,
  }
end

---The answer as JSON.
chat.answer = [[{"id":"chatcmpl-9f3a1c2b7d8e4f5a6b7c8d9e0f1a2b3c","object":"chat.completion",]]
  .. [["created":1764000000,"model":"my-served-model-2","choices":[{"index":0,"message":]]
  .. [[{"role":"assistant","content":"A sluice is a gate in a channel: it lets a stream through, ]]
  .. [[holds it back, splits it and measures it, all day long.\nThat is what this program does to ]]
  .. [[requests for \"model endpoints\", and Lua opens and shuts the gate; nothing more than that ]]
  .. [[is needed to say what it is for."},"logprobs":null,"finish_reason":"stop"}],"usage":]]
  .. [[{"prompt_tokens":57,"completion_tokens":61,"total_tokens":118},]]
  .. [["system_fingerprint":"fp_44709d6fcb"}]]

---What is checked in each answer: choices[1].message.content begins so, and usage.total_tokens is it.
chat.total_tokens = 118

return chat
