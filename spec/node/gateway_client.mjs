// SPDX-License-Identifier: MIT
// Drives scripts/gateway.lua as the npm package openai does: node gateway_client.mjs URL KEY. Prints a line for each step.

import assert from "node:assert";
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "one two three" }];

async function step(title, f) {
  await f();
  console.log(`ok ${title}`);
}

async function refused(kind, f) {
  await assert.rejects(f, (error) => {
    assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    return true;
  });
}

async function text_of(stream) {
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  return text;
}

await step("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepStrictEqual(names.sort(), ["chat", "embed", "safe"]);
  assert.strictEqual((await client.models.retrieve("chat")).id, "chat");
});

await step("chat", async () => {
  const { data, response } = await client.chat.completions.create({ model: "chat", messages }).withResponse();
  assert.strictEqual(data.choices[0].message.content, "one two three");
  assert.ok(response.headers.get("x-request-id"));
});

await step("streaming", async () => {
  const stream = await client.chat.completions.create({ model: "chat", messages, stream: true });
  assert.strictEqual(await text_of(stream), "one two three");
});

await step("the fallback, plain and streamed", async () => {
  const answer = await client.chat.completions.create({ model: "safe", messages }).withResponse();
  assert.strictEqual(answer.data.choices[0].message.content, "one two three");
  assert.strictEqual(answer.response.headers.get("x-answered-by"), "chat");
  const stream = await client.chat.completions.create({ model: "safe", messages, stream: true });
  assert.strictEqual(await text_of(stream), "one two three");
});

await step("tools, streamed", async () => {
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
  const asked = [{ role: "user", content: "How is the weather in Paris?" }];
  const stream = client.chat.completions.stream({ model: "chat", messages: asked, tools });
  const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
  assert.strictEqual(call.function.name, "get_weather");
  assert.deepStrictEqual(JSON.parse(call.function.arguments), { city: "Paris" });
});

await step("completions and embeddings", async () => {
  const answer = await client.completions.create({ model: "chat", prompt: "one two" });
  assert.strictEqual(answer.choices[0].text, "one two");
  const vectors = await client.embeddings.create({ model: "embed", input: ["a", "b"], encoding_format: "float" });
  assert.strictEqual(vectors.data.length, 2);
});

await step("errors in the client's own kinds", async () => {
  await refused(OpenAI.NotFoundError, () => client.chat.completions.create({ model: "none", messages }));
  await refused(OpenAI.BadRequestError, () => client.chat.completions.create({ model: "chat" }));
  await refused(OpenAI.BadRequestError, () =>
    client.chat.completions.create({ model: "chat", messages, n: 2, stream: true }));
  const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
  await refused(OpenAI.AuthenticationError, () => stranger.models.list());
});

await step("abort", async () => {
  const long = [{ role: "user", content: "word ".repeat(2000) }];
  const stream = await client.chat.completions.create({ model: "chat", messages: long, stream: true });
  let chunks = 0;
  for await (const chunk of stream) {
    assert.ok(chunk.object);
    if (++chunks === 3) stream.controller.abort();
  }
  assert.ok(chunks < 100);
});
