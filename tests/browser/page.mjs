// Tests the status page in a real browser. It reads one JSON command per line from standard input, and writes one JSON answer per line to
// standard output.
//
//   {"open": "http://127.0.0.1:8080/"}            opens a page; {"width", "height", "scheme"} are optional
//   {"text": "#headline", "contains": "In step"}   waits until an element contains the text; answers with the text and the time it took
//   {"changes": "#completed"}                      waits until the text of an element changes
//   {"axe": true}                                  violations of WCAG 2.2 A and AA
//   {"tab": 12}                                    presses Tab 12 times; answers with the elements that had the focus
//   {"overflow": true}                             number of pixels by which the page is wider than the window
//   {"screenshot": "page.png"}                     writes a screenshot
//   {"events": "refuse"}                          treatment of server-sent events in pages that are opened later: "pass", "refuse",
//                                                 or "hold", like a proxy that buffers the whole answer
//   {"release": "9.9.9"}                           later answers have this version
//   {"hide": true}                                 makes the page believe that its tab is hidden, or shown
//   {"tabs": 8, "contains": "In step"}             opens 8 tabs of the page, and waits until all of them contain the text
//   {"requests": true}                             number of requests for each path since the page was opened, and number of loads
//   {"console": true}                              errors that the page has logged, and failed requests, since the page was opened
//   {"type": "pump"}, {"press": "Enter"}           sends keys to the element with the focus
//   {"click": "#again"}, {"back": true}            clicks an element; goes back
//   {"fill": "#device", "with": "pump"}            enters a text into a field, which gets the focus
//   {"focus": true}                                the element with the focus
//   {"count": "script"}, {"title": true}           number of elements; title of the page
//   {"kept": true}                                 data that the browser stores for the page: storage, cookies, the address
//
// Usage: node page.mjs CHROMIUM

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const LIMIT = 60000;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath: process.argv[2], args: ["--no-sandbox"] });
let context = null;
let page = null;
let errors = [];
let events = "pass";
let release = null;
let requests = {};
let loads = 0;

async function open({ open: url, width = 1280, height = 900, scheme = "light" }) {
  await context?.close();
  context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
  page = await context.newPage();
  errors = [];
  requests = {};
  loads = 0;
  if (events === "refuse") await context.route("**/api/events", (route) => route.fulfill({ status: 503, body: "{}" }));
  // The request is neither answered nor ended, as behind a proxy that waits for the end of an endless answer.
  if (events === "hold") await context.route("**/api/events", () => {});
  page.on("request", (request) => {
    const { pathname } = new URL(request.url());
    requests[pathname] = (requests[pathname] ?? 0) + 1;
  });
  page.on("load", () => (loads += 1));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("requestfailed", (request) => errors.push(`${request.url()}: ${request.failure()?.errorText}`));
  const answer = await page.goto(url, { waitUntil: "load" });
  return { status: answer.status() };
}

async function text({ text: selector, contains }) {
  const began = performance.now();
  const found = page.locator(selector).filter({ hasText: contains });
  await found.first().waitFor({ timeout: LIMIT });
  const words = (element) => element.innerText ?? element.textContent;
  return { text: await page.locator(selector).first().evaluate(words), seconds: (performance.now() - began) / 1000 };
}

async function changes({ changes: selector }) {
  const before = await page.locator(selector).innerText();
  await page.waitForFunction(([selector, before]) => document.querySelector(selector).innerText !== before, [selector, before], { timeout: LIMIT });
  return { before, after: await page.locator(selector).innerText() };
}

async function checkAccessibility() {
  await page.evaluate(axe);
  const options = { runOnly: { type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] } };
  const { violations, passes } = await page.evaluate((options) => window.axe.run(document, options), options);
  const found = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
  return { violations: found, passes: passes.length };
}

async function tab({ tab: times }) {
  const focused = [];
  for (let pressed = 0; pressed < times; pressed += 1) {
    await page.keyboard.press("Tab");
    focused.push(await page.evaluate(() => {
      const element = document.activeElement;
      const outline = getComputedStyle(element).outlineStyle;
      return { name: element.getAttribute("href") ?? element.getAttribute("aria-label") ?? (element.id || element.tagName), visible: outline !== "none" };
    }));
  }
  return { focused };
}

/** Changes the version in all answers. */
async function other({ release: version }) {
  release = version;
  await context.route("**/api/status", async (route) => {
    const answer = await route.fetch();
    const status = await answer.json();
    status.replica.version = release;
    await route.fulfill({ response: answer, json: status });
  });
  await context.route("**/api/events", (route) => route.fulfill({ status: 503, body: "{}" }));
  return {};
}

async function hide({ hide: hidden }) {
  await page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  return {};
}

async function tabs({ tabs: count, contains }) {
  const began = performance.now();
  const url = page.url();
  const pages = await Promise.all(Array.from({ length: count }, async () => {
    const tab = await context.newPage();
    await tab.goto(url, { waitUntil: "load" });
    await tab.locator("#headline").filter({ hasText: contains }).waitFor({ timeout: LIMIT });
    return tab;
  }));
  // Each tab is updated further.
  await Promise.all(pages.map(async (tab) => {
    const before = await tab.locator("#connection").innerText();
    await tab.waitForFunction((before) => document.querySelector("#connection").innerText !== before, before, { timeout: LIMIT });
  }));
  const headlines = await Promise.all(pages.map((tab) => tab.locator("#headline").innerText()));
  await Promise.all(pages.map((tab) => tab.close()));
  return { headlines, seconds: (performance.now() - began) / 1000 };
}

const choose = async ({ events: way }) => ((events = way), {});
const overflow = async () => ({ pixels: await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth) });
const screenshot = async ({ screenshot: path }) => (await page.screenshot({ path, fullPage: true }), {});

const type = async ({ type: text }) => (await page.keyboard.type(text), {});
const press = async ({ press: key }) => (await page.keyboard.press(key), {});
const click = async ({ click: selector }) => (await page.locator(selector).click({ timeout: LIMIT }), {});
const back = async () => (await page.goBack(), {});
const fill = async ({ fill: selector, with: text }) => (await page.locator(selector).fill(text), {});
const focus = async () => ({ name: await page.evaluate(() => document.activeElement.id || document.activeElement.tagName) });
const count = async ({ count: selector }) => ({ elements: await page.locator(selector).count() });
const title = async () => ({ title: await page.title() });

async function kept() {
  const [session, local] = await page.evaluate(() => [{ ...sessionStorage }, { ...localStorage }]);
  return { session, local, cookies: await context.cookies(), url: page.url() };
}

const commands = { type, press, click, back, fill, focus, count, title, kept, open, text, changes, axe: checkAccessibility, tab, tabs, hide, release: other, events: choose, requests: async () => ({ requests, loads }), overflow, screenshot, console: async () => ({ errors }) };

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const command = JSON.parse(line);
    const name = Object.keys(command).find((name) => name in commands);
    answer = await commands[name](command);
  } catch (error) {
    answer = { error: String(error), page: await page?.locator("body").innerText().catch(() => "") };
  }
  console.log(JSON.stringify(answer));
}
await browser.close();
