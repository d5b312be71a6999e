// SPDX-License-Identifier: MIT
// The same block as in sse_reader.lua through npm's eventsource-parser and a TextDecoder: prints `events`.
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";

const require = createRequire(new URL("../node/", import.meta.url));
const { createParser } = require("eventsource-parser");

const block = Buffer.from(("data: " + "x".repeat(192) + "\n\n").repeat(80));
let count = 0;
const parser = createParser({ onEvent: () => { count++; } });
const decoder = new TextDecoder();
const start = performance.now();
let fed = 0, took = 0;
do {
  for (let turn = 0; turn < 20; turn++) parser.feed(decoder.decode(block, { stream: true }));
  fed += 20 * block.length;
  took = performance.now() - start;
} while (took < 300);
if (count * 200 !== fed) throw new Error("events are missing");
console.log("events", fed / took / 1e3);
