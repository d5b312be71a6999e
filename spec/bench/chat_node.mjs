// SPDX-License-Identifier: MIT
// chat_client.lua with Node: undici's request, or node:http with keep-alive.
//
//     node chat_node.mjs undici|http URL CONCURRENCY SECONDS
import { createRequire } from "node:module";
import http from "node:http";
import process from "node:process";

const [kind, url] = process.argv.slice(2, 4);
const [concurrency, seconds] = process.argv.slice(4).map(Number);

const chat = () => ({
  model: "my-served-model-2",
  messages: [
    { role: "system", content: "You are a terse assistant that answers in one sentence of plain words." },
    {
      role: "user",
      content: "What is a sluice, and why would somebody give that name to a program that sends"
        + " requests to model endpoints?",
    },
  ],
  temperature: 0.7,
  max_tokens: 128,
  stream: false,
});

const headers = { "content-type": "application/json" };

function undiciSender() {
  const { Agent, request } = createRequire(new URL("../node/", import.meta.url))("undici");
  const dispatcher = new Agent({ connections: concurrency });
  return async (body) => (await request(url, { method: "POST", headers, body, dispatcher })).body.json();
}

function httpSender() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: concurrency });
  return (body) => new Promise((resolve, reject) => {
    const length = { "content-length": Buffer.byteLength(body) };
    const options = { method: "POST", agent, headers: { ...headers, ...length } };
    const request = http.request(url, options, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (piece) => { text += piece; });
      response.on("end", () => resolve(JSON.parse(text)));
    });
    request.on("error", reject);
    request.end(body);
  });
}

const send = kind === "undici" ? undiciSender() : httpSender();

async function work(stop) {
  let count = 0;
  while (performance.now() < stop) {
    const answer = await send(JSON.stringify(chat()));
    if (answer.usage.total_tokens !== 118) throw new Error("wrong answer");
    count++;
  }
  return count;
}

async function runFor(duration) {
  const stop = performance.now() + duration * 1e3;
  const counts = await Promise.all(Array.from({ length: concurrency }, () => work(stop)));
  return counts.reduce((sum, count) => sum + count, 0);
}

await runFor(0.3);
const [wall, cpu] = [performance.now(), process.cpuUsage()];
const count = await runFor(seconds);
const used = process.cpuUsage(cpu);
const rate = count / (performance.now() - wall) * 1e3;
const each = (used.user + used.system) / count;
const most = process.resourceUsage().maxRSS / 1024;
console.log(`rate ${rate.toFixed(1)}\ncpu ${each.toFixed(3)}\nmb ${most.toFixed(2)}`);
process.exit(0);
