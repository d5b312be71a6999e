// SPDX-License-Identifier: MIT
// A real Chromium over its debugging pipe, without a package.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [chromium, url, screenshot] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "sluice-page-"));
const browser = spawn(chromium, [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
  "--window-size=800,600", "--remote-debugging-pipe", "--user-data-dir=" + profile, "about:blank",
], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });

const waiting = new Map();
// Exceptions of the page, and the requests that it makes after its own.
export const problems = [], requests = [];
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
    if (message.method === "Network.requestWillBeSent") requests.push(message.params.request.url);
    const settle = waiting.get(message.id);
    if (!settle) continue;
    waiting.delete(message.id);
    if (message.error) settle.reject(new Error(message.error.message));
    else settle.resolve(message.result);
  }
});

export function call(method, params = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject });
    browser.stdio[3].write(JSON.stringify({ id: last, method, params, sessionId: session }) + "\0");
  });
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export async function evaluate(expression) {
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.text + ": " + expression);
  return result.value;
}

export async function until(expression) {
  for (let tries = 0; tries < 1000; tries++) {
    if (await evaluate(expression)) return;
    await sleep(20);
  }
  throw new Error("it never came: " + expression);
}

export async function capture(more = {}) {
  const { data } = await call("Page.captureScreenshot", { format: "png", ...more });
  writeFileSync(screenshot, Buffer.from(data, "base64"));
}

// Opens the page and waits until it is there; prints what `look` has seen as JSON, and ends the process.
export async function drive(look) {
  const patience = setTimeout(() => browser.kill("SIGKILL"), 60000);
  browser.on("exit", () => {
    for (const { reject } of waiting.values()) reject(new Error("Chromium has ended"));
  });
  try {
    const { targetId } = await call("Target.createTarget", { url: "about:blank" });
    ({ sessionId: session } = await call("Target.attachToTarget", { targetId, flatten: true }));
    for (const domain of ["Runtime", "Network", "Page"]) await call(domain + ".enable");
    await call("Page.navigate", { url });
    await until(`location.href !== "about:blank" && document.readyState === "complete"`);
    requests.splice(0, 1);
    console.log(JSON.stringify({ ...await look(), problems }));
  } catch (error) {
    console.log(error.stack);
    process.exitCode = 1;
  }
  clearTimeout(patience);
  session = undefined;
  await Promise.race([call("Browser.close").catch(() => {}), sleep(2000)]);
  browser.kill("SIGKILL");
  await remove();
  process.exit();
}

// The browser's helpers write into the folder for a moment longer, and rmSync lists it once, whatever its retries.
async function remove() {
  for (let tries = 0; tries < 100; tries++) {
    await sleep(100);
    try {
      return rmSync(profile, { recursive: true, force: true });
    } catch (error) {
      if (error.code !== "ENOTEMPTY") throw error;
    }
  }
}
