// Shared by the tests of the site: a server on this machine, Chromium, and the list of pages.
// The folder of the built site and the browser are SITE and CHROMIUM, which `make site-test` sets.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const here = path.dirname(fileURLToPath(import.meta.url));
export const SITE = path.resolve(process.env.SITE ?? path.join(here, "../../_build/html"));
export const AXE = fs.readFileSync(path.join(here, "node_modules/axe-core/axe.min.js"), "utf8");
export const PHONE = { width: 390, height: 844 };
export const DESK = { width: 1280, height: 900 };

if (!fs.existsSync(path.join(SITE, "index.html")))
  throw new Error(`No site in ${SITE}: run \`make book\` first, or set SITE to its folder`);

const KINDS = {
  ".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".json": "application/json",
  ".pdf": "application/pdf", ".png": "image/png", ".svg": "image/svg+xml", ".txt": "text/plain",
  ".woff": "font/woff", ".woff2": "font/woff2", ".zip": "application/zip",
};

// The pages of the book, and the search page.
export const PAGES = [
  ...fs.readdirSync(path.join(SITE, "book"), { recursive: true })
    .filter((name) => name.endsWith(".html"))
    .map((name) => `book/${name.split(path.sep).join("/")}`)
    .sort(),
  "search.html", "genindex.html",
];

// A function (open) that opens a page, and one that closes everything. Each opened page has
// `.complaints`: console messages, failed requests, and requests to anywhere but the site.
export async function browse() {
  const server = http.createServer((request, response) => {
    const name = decodeURIComponent(new URL(request.url, "http://site").pathname);
    const file = path.join(SITE, name);
    if (!file.startsWith(SITE) || !fs.existsSync(file) || fs.statSync(file).isDirectory()) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": KINDS[path.extname(file)] ?? "text/plain" });
    fs.createReadStream(file).pipe(response);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const served = `http://127.0.0.1:${server.address().port}/`;
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--font-render-hinting=none"],
  });

  // Pages share what the browser keeps of scripts and fonts; what is asked for is set for each.
  const common = await browser.newContext();

  async function open(name, { viewport = DESK, fromFile = false, ...options } = {}) {
    const base = fromFile ? pathToFileURL(SITE).href + "/" : served;
    const special = Object.keys(options).length > 0;
    const context = special ? await browser.newContext(options) : common;
    const page = await context.newPage();
    await page.setViewportSize(viewport);
    page.complaints = [];
    page.on("console", (message) => page.complaints.push(`console: ${message.text()}`));
    page.on("pageerror", (error) => page.complaints.push(`error: ${error.message}`));
    page.on("requestfailed", (r) => page.complaints.push(`failed: ${r.url()}`));
    await page.route("**", (route) => {
      const url = route.request().url();
      if (url.startsWith(base) || /^(data|blob):/.test(url)) return route.continue();
      page.complaints.push(`another origin: ${url}`);
      return route.abort();
    });
    await page.goto(base + name, { waitUntil: "load" });
    await page.evaluate(() => window.MathJax?.startup?.promise);
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn, 200))));
    return page;
  }

  async function close() {
    await browser.close();
    await new Promise((closed) => server.close(closed));
  }

  return { open, close };
}
