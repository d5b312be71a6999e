// SPDX-License-Identifier: MIT
// Drives a Chromium: chat_page.mjs CHROMIUM URL SCREENSHOT
// Types two messages into the chat page, stops the second answer, and prints what was seen as JSON.
import { call, capture, drive, evaluate, until } from "./browser.mjs";

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

drive(async () => {
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
  await capture();
  await click("button");
  await until(`!(${BUSY})`);
  seen.stopped = await evaluate(`${LAST}.lastChild.textContent`);
  seen.users = await evaluate(`document.querySelectorAll(".user").length`);
  return seen;
});
