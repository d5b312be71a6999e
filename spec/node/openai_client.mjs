// SPDX-License-Identifier: MIT
// Drives the emulator as the npm package openai does: node openai_client.mjs URL. Prints a line for each step.

import assert from "node:assert";
import OpenAI from "openai";

const host = process.argv[2];
const client = new OpenAI({ baseURL: `${host}/serving-endpoints`, apiKey: "any", maxRetries: 0 });
const headers = { authorization: "Bearer any", "content-type": "application/json" };

async function step(title, f) {
  await f();
  console.log(`ok ${title}`);
}

async function api(method, path, body) {
  const answer = await fetch(host + path, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.json();
}

async function create(name, model, more) {
  const config = { served_entities: [{ entity_name: `main.default.${model}`, entity_version: "1" }] };
  await api("POST", "/api/2.0/serving-endpoints", { name, config, ...more });
  for (let look = 0; look < 100; look++) {
    const endpoint = await api("GET", `/api/2.0/serving-endpoints/${name}`);
    if (endpoint.state.ready === "READY") return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail(`${name} did not become ready`);
}

const messages = [{ role: "user", content: "one two three" }];
const tools = [{
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
}];

await create("chat", "echo");
await create("embed", "embedding");

await step("chat", async () => {
  const { data, response } = await client.chat.completions.create({ model: "chat", messages }).withResponse();
  assert.strictEqual(data.choices[0].message.content, "one two three");
  assert.strictEqual(data.choices[0].finish_reason, "stop");
  assert.deepStrictEqual(data.usage, { prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 });
  assert.strictEqual(response.headers.get("served-model-name"), "echo-1");
  assert.ok(response.headers.get("x-request-id"));
});

await step("chat with n and a limit", async () => {
  const answer = await client.chat.completions.create({ model: "chat", messages, n: 2, max_tokens: 1 });
  assert.deepStrictEqual(answer.choices.map((choice) => [choice.message.content, choice.finish_reason]),
    [["one", "length"], ["one", "length"]]);
});

async function deltas(stream) {
  const texts = [];
  let usage;
  for await (const chunk of stream) {
    if (chunk.choices.length > 0) texts.push(chunk.choices[0].delta.content ?? "");
    usage = chunk.usage ?? usage;
  }
  return { texts, usage };
}

await step("streaming", async () => {
  const stream = await client.chat.completions.create({ model: "chat", messages, stream: true });
  const { texts, usage } = await deltas(stream);
  assert.deepStrictEqual(texts, ["", "one", " two", " three", ""]);
  assert.strictEqual(usage.total_tokens, 6);
});

await step("streaming in OpenAI's dialect, by tag", async () => {
  await create("final", "echo", { tags: [{ key: "emulator.usage", value: "final" }] });
  const stream_options = { include_usage: true };
  const stream = await client.chat.completions.create({ model: "final", messages, stream: true, stream_options });
  const { texts, usage } = await deltas(stream);
  assert.strictEqual(texts.join(""), "one two three");
  assert.strictEqual(usage.total_tokens, 6);
});

await step("the stream helper", async () => {
  const stream = client.chat.completions.stream({ model: "chat", messages });
  const pieces = [];
  stream.on("content", (delta) => pieces.push(delta));
  const whole = await stream.finalChatCompletion();
  assert.strictEqual(whole.choices[0].message.content, "one two three");
  assert.strictEqual(pieces.join(""), "one two three");
});

await step("tools, plain and streamed", async () => {
  const asked = [{ role: "user", content: "How is the weather in Paris?" }];
  const answer = await client.chat.completions.create({ model: "chat", messages: asked, tools });
  const [choice] = answer.choices;
  assert.strictEqual(choice.finish_reason, "tool_calls");
  const [call] = choice.message.tool_calls;
  assert.deepStrictEqual(JSON.parse(call.function.arguments), { city: "Paris" });
  const told = [...asked, choice.message, { role: "tool", tool_call_id: call.id, content: "sunny" }];
  const after = await client.chat.completions.create({ model: "chat", messages: told, tools });
  assert.strictEqual(after.choices[0].finish_reason, "stop");
  const stream = client.chat.completions.stream({ model: "chat", messages: asked, tools });
  const whole = await stream.finalChatCompletion();
  assert.strictEqual(whole.choices[0].message.tool_calls[0].function.name, "get_weather");
  assert.deepStrictEqual(JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments), { city: "Paris" });
});

await step("responses, plain and streamed", async () => {
  const answer = await client.responses.create({ model: "chat", input: "one two", instructions: "be brief" });
  assert.strictEqual(answer.output_text, "one two");
  assert.strictEqual(answer.usage.output_tokens, 2);
  const stream = client.responses.stream({ model: "chat", input: [{ role: "user", content: "one two" }] });
  const pieces = [];
  stream.on("response.output_text.delta", (event) => pieces.push(event.delta));
  assert.strictEqual((await stream.finalResponse()).output_text, "one two");
  assert.deepStrictEqual(pieces, ["one", " two"]);
  const flat = [{ type: "function", ...tools[0].function }];
  const asked = await client.responses.create({ model: "chat", input: "weather in Paris", tools: flat });
  const [call] = asked.output;
  assert.deepStrictEqual(JSON.parse(call.arguments), { city: "Paris" });
  const result = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
  const input = [{ role: "user", content: "weather in Paris" }, call, result];
  const after = await client.responses.create({ model: "chat", input, tools: flat });
  assert.strictEqual(after.output[0].type, "message");
  const streamed = client.responses.stream({ model: "chat", input: "weather in Paris", tools: flat });
  assert.strictEqual((await streamed.finalResponse()).output[0].name, "get_weather");
});

await step("JSON by a schema", async () => {
  const schema = { type: "object", properties: { place: { type: "string" }, days: { type: "integer" } } };
  const response_format = { type: "json_schema", json_schema: { name: "trip", schema } };
  const asked = [{ role: "user", content: "Go to Rome for 4 days" }];
  const answer = await client.chat.completions.create({ model: "chat", messages: asked, response_format });
  assert.deepStrictEqual(JSON.parse(answer.choices[0].message.content), { place: "Rome", days: 4 });
});

await step("completions", async () => {
  const answer = await client.completions.create({ model: "chat", prompt: "once upon" });
  assert.strictEqual(answer.choices[0].text, "once upon");
  const texts = [];
  for await (const chunk of await client.completions.create({ model: "chat", prompt: "once upon", stream: true })) {
    texts.push(chunk.choices[0].text);
  }
  assert.strictEqual(texts.join(""), "once upon");
});

await step("embeddings, by base64 and by floats", async () => {
  const packed = await client.embeddings.create({ model: "embed", input: ["a river", "a lock"] });
  const plain = await client.embeddings.create({ model: "embed", input: ["a river", "a lock"], encoding_format: "float" });
  assert.strictEqual(packed.data.length, 2);
  assert.strictEqual(packed.data[1].embedding.length, 64);
  packed.data[1].embedding.forEach((x, i) => assert.ok(Math.abs(x - plain.data[1].embedding[i]) < 1e-6));
});

await step("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepStrictEqual(names, ["chat", "embed", "final"]);
});

async function refused(promise, status, kind) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof kind, `${error}`);
    assert.strictEqual(error.status, status);
    return true;
  });
}

await step("errors", async () => {
  const ask = (model, more) => client.chat.completions.create({ model, messages, ...more });
  await refused(ask("absent"), 404, OpenAI.NotFoundError);
  await refused(ask("chat", { messages: [] }), 400, OpenAI.BadRequestError);
  await refused(ask("chat", { stream: true, n: 2 }), 400, OpenAI.BadRequestError);
  await refused(ask("embed"), 400, OpenAI.BadRequestError);
  const limits = { rate_limits: [{ calls: 0, renewal_period: "minute" }] };
  await create("limited", "echo", { ai_gateway: limits });
  await refused(ask("limited"), 429, OpenAI.RateLimitError);
  await assert.rejects(ask("limited"), (error) => error.headers.get("x-ratelimit-limit-requests") === "0"
    && Number(error.headers.get("retry-after")) > 0);
});

await step("faults that it retries", async () => {
  const patient = new OpenAI({ baseURL: `${host}/serving-endpoints/v1`, apiKey: "any", maxRetries: 2 });
  const body = { error_code: "TEMPORARILY_UNAVAILABLE", message: "soon" };
  const rule = { kind: "status", status: 503, json: body, headers: { "retry-after": "0.01" }, endpoint: "chat", times: 1 };
  await api("POST", "/emulator/faults", [rule, { kind: "reset", endpoint: "chat", times: 1 }]);
  const answer = await patient.chat.completions.create({ model: "chat", messages });
  assert.strictEqual(answer.choices[0].message.content, "one two three");
  const { faults } = await api("GET", "/emulator/faults");
  assert.deepStrictEqual(faults.map((fault) => fault.hits), [1, 1]);
  await api("DELETE", "/emulator/faults");
});

async function fault(rule) {
  await api("POST", "/emulator/faults", { times: 1, chunks: 2, ...rule });
  return deltas(await client.chat.completions.create({ model: "chat", messages, stream: true }));
}

await step("faults in mid-stream", async () => {
  await assert.rejects(fault({ kind: "stream_error", message: "broken" }), /broken/);
  await assert.rejects(fault({ kind: "stream_cut" }));
  await assert.rejects(fault({ kind: "stream_bad_json" }), SyntaxError);
});

await step("abort", async () => {
  await api("POST", "/emulator/faults", { kind: "stream_stall", chunks: 2, times: 1 });
  const stream = await client.chat.completions.create({ model: "chat", messages, stream: true });
  let count = 0;
  for await (const _ of stream) {
    count += 1;
    if (count === 2) stream.controller.abort();
  }
  assert.strictEqual(count, 2);
  const controller = new AbortController();
  await api("POST", "/emulator/faults", { kind: "stall", endpoint: "chat", times: 1 });
  const promise = client.chat.completions.create({ model: "chat", messages }, { signal: controller.signal });
  setTimeout(() => controller.abort(), 50);
  await assert.rejects(promise, OpenAI.APIUserAbortError);
});

console.log("done");
