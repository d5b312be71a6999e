// SPDX-License-Identifier: MIT
// Looks at the page of a report: report_page.mjs CHROMIUM URL SCREENSHOT
import { capture, drive, evaluate, requests } from "./browser.mjs";

const ask = (expression) => evaluate(expression);

drive(async () => {
  const seen = {
    title: await ask(`document.querySelector("h1").textContent`),
    verdict: await ask(`document.querySelector(".verdict b").textContent`),
    plots: await ask(`[...document.querySelectorAll("svg[role=img]")].filter((each) => {
      const { width, height } = each.getBoundingClientRect();
      return width > 300 && height > 40;
    }).length`),
    colors: await ask(`[...document.querySelectorAll(".legend circle")].map((each) => getComputedStyle(each).fill)`),
    // nothing sticks out of its plot or of the page
    inside: await ask(`[...document.querySelectorAll("svg[role=img] :is(line, circle, text, path)")].every((each) => {
      const inner = each.getBoundingClientRect(), outer = each.closest("svg").getBoundingClientRect();
      return inner.left >= outer.left - 1 && inner.right <= outer.right + 1 && inner.bottom <= outer.bottom + 1;
    }) && document.documentElement.scrollWidth <= innerWidth`),
    scripts: await ask(`document.scripts.length`),
  };
  const height = await ask(`document.documentElement.scrollHeight`);
  await capture({ captureBeyondViewport: true, clip: { x: 0, y: 0, width: 800, height, scale: 1 } });
  return { ...seen, requests };
});
