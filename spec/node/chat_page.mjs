// SPDX-License-Identifier: MIT
// Drives a real Chromium over its debugging pipe, without a package: chat_page.mjs CHROMIUM URL SCREENSHOT
// Types two messages into the chat page, stops the second answer, and prints what was seen as JSON.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [chromium, url, screenshot] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "chat-page-"));
const browser = spawn(chromium, [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
  "--window-size=800,600", "--remote-debugging-pipe", "--user-data-dir=" + profile, "about:blank",
], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });

const waiting = new Map();
const problems = [];
let last = 0, session, rest = "";

browser.stdio[4].on("data", (bytes) => {
  const parts = (rest + bytes).split("\0");
  rest = parts.pop();
  for (const part of parts) {
    const message = JSON.parse(part);
    if (message.method === "Runtime.exceptionThrown") {
      const details = message.params.exceptionDetails;
      problems.push(details.exception?.description ?? details.text);
    }
    const settle = waiting.get(message.id);
    if (!settle) continue;
    waiting.delete(message.id);
    if (message.error) settle.reject(new Error(message.error.message));
    else settle.resolve(message.result);
  }
});

function call(method, params = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject });
    browser.stdio[3].write(JSON.stringify({ id: last, method, params, sessionId: session }) + "\0");
  });
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function evaluate(expression) {
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.text + ": " + expression);
  return result.value;
}

async function until(expression) {
  for (let tries = 0; tries < 1000; tries++) {
    if (await evaluate(expression)) return;
    await sleep(20);
  }
  throw new Error("it never came: " + expression);
}

// Keys, as a person presses them.
async function type(text) {
  for (const key of text) {
    await call("Input.dispatchKeyEvent", { type: "keyDown", text: key });
    await call("Input.dispatchKeyEvent", { type: "keyUp" });
  }
  const enter = { key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: "\r" };
  await call("Input.dispatchKeyEvent", { type: "keyDown", ...enter });
  await call("Input.dispatchKeyEvent", { type: "keyUp", ...enter });
}

const LAST = `[...document.querySelectorAll(".assistant")].at(-1)`;
const BUSY = `${LAST}?.getAttribute("aria-busy") === "true"`;

// The page notes how long the answer is whenever it changes: a busy machine misses nothing.
const WATCH = `window.lengths = [];
  new MutationObserver(() => lengths.push(${LAST}?.textContent.length ?? 0)).observe(
    document.getElementById("log"), { subtree: true, childList: true, characterData: true })`;

async function click(id) {
  const at = await evaluate(`(({ x, y, width, height }) => ({ x: x + width / 2, y: y + height / 2 }))(
    document.getElementById("${id}").getBoundingClientRect())`);
  for (const kind of ["mousePressed", "mouseReleased"])
    await call("Input.dispatchMouseEvent", { type: kind, ...at, button: "left", clickCount: 1 });
}

async function run() {
  const { targetId } = await call("Target.createTarget", { url });
  ({ sessionId: session } = await call("Target.attachToTarget", { targetId, flatten: true }));
  await call("Runtime.enable");
  await until(`document.readyState === "complete" && document.getElementById("state")?.textContent`);
  const seen = { state: await evaluate(`document.getElementById("state").textContent`) };
  await evaluate(WATCH);
  await type("one two three four five six <b>seven</b>");
  await until(`${LAST} && !(${BUSY})`);
  seen.lengths = await evaluate(`[...new Set(lengths)]`);
  seen.answer = await evaluate(`${LAST}.textContent`);
  seen.markup = await evaluate(`document.querySelectorAll("#log b").length`);
  await type("alpha beta gamma ".repeat(10));
  await until(`${BUSY} && ${LAST}.textContent.length > 10`);
  const { data } = await call("Page.captureScreenshot", { format: "png" });
  writeFileSync(screenshot, Buffer.from(data, "base64"));
  await click("button");
  await until(`!(${BUSY})`);
  seen.stopped = await evaluate(`${LAST}.lastChild.textContent`);
  seen.users = await evaluate(`document.querySelectorAll(".user").length`);
  seen.problems = problems;
  console.log(JSON.stringify(seen));
}

const patience = setTimeout(() => browser.kill("SIGKILL"), 60000);
browser.on("exit", () => {
  for (const { reject } of waiting.values()) reject(new Error("Chromium has ended"));
});
try {
  await run();
} catch (error) {
  console.log(error.stack);
  process.exitCode = 1;
}
clearTimeout(patience);
session = undefined;
await Promise.race([call("Browser.close").catch(() => {}), sleep(2000)]);
browser.kill("SIGKILL");
await sleep(100);
rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
process.exit();
