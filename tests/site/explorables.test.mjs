// Explorables: every control moves the picture and the number, by keyboard and by touch, with no
// kernel and nothing fetched; and they work in a sandboxed frame, as Colab shows them.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { PHONE, SITE, browse } from "./site.mjs";

const CHAPTERS = [
  "intro", "gradients_from_values", "zo_sgd", "learning_dynamics", "kernel_emerges", "jl_lemma",
  "kernel_fidelity", "dimension_free", "loss_view", "trajectories", "llm_dynamics",
  "llm_finetuning", "beyond",
];
const BLOCK = /<div class="zo-explorable[\s\S]*?<\/script>/;

let site;
before(async () => { site = await browse(); });
after(() => site.close());

// What an explorable shows: its picture as SVG and HTML, and the sentence with its number.
async function shown(page, root) {
  await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn))));
  return {
    picture: await root.locator(".zo-figure").innerHTML(),
    number: await root.locator(".zo-answer").textContent(),
  };
}

// The keys that move a control and move it back.
async function keys(control) {
  const [value, last, select] = await control.evaluate((node) => node.tagName === "SELECT"
    ? [node.selectedIndex, node.options.length - 1, true]
    : [Number(node.value), Number(node.max), false]);
  const [forward, back] = select ? ["ArrowDown", "ArrowUp"] : ["ArrowRight", "ArrowLeft"];
  return value < last ? [forward, back] : [back, forward];
}

for (const chapter of CHAPTERS) {
  test(`${chapter}: every control moves the picture and the number`, async () => {
    const page = await site.open(`book/${chapter}.html`);
    const root = page.locator(".zo-explorable").first();
    await root.scrollIntoViewIfNeeded();
    assert.equal(await root.locator(".zo-static").count(), 0, "the static fallback is still there");
    const controls = await root.locator("input, select").all();
    for (const control of controls) {
      const name = await control.evaluate((node) => node.labels[0]?.textContent);
      assert.ok(name, "a control without a label");
      // without it, JupyterLab takes the arrow keys for itself
      assert.equal(await control.getAttribute("data-lm-suppress-shortcuts"), "true");
      const before = await shown(page, root);
      assert.ok(/\d/.test(before.number) && !/undefined|NaN/.test(before.number), before.number);
      const [move, back] = await keys(control);
      await control.focus();
      await page.keyboard.press(move);
      const moved = await shown(page, root);
      assert.notEqual(moved.picture, before.picture, `the picture ignores "${name}"`);
      assert.notEqual(moved.number, before.number, `the number ignores "${name}"`);
      await page.keyboard.press(back);
      assert.deepEqual(await shown(page, root), before, `"${name}" there and back`);
    }
    const labels = await root.locator("svg").evaluateAll((all) =>
      all.map((node) => [node.getAttribute("role"), node.getAttribute("aria-label")]));
    for (const [role, label] of labels) assert.ok(role === "img" && label.length > 2, label);
    const left = await page.evaluate(() => ["mount", "explorables", "stream"].filter((n) => n in window));
    assert.deepEqual(left, [], "names that an explorable left in the page");
    assert.deepEqual(page.complaints, []);
    await page.close();
  });

  test(`${chapter}: without scripts there is a table`, async () => {
    const text = fs.readFileSync(path.join(SITE, "book", `${chapter}.html`), "utf8");
    const block = BLOCK.exec(text)?.[0];
    assert.ok(block, "no explorable");
    assert.match(block.split("<script>")[0], /<div class="zo-static">\s*<table>\s*<caption>/);
    assert.ok(Buffer.byteLength(block) <= 200_000);
  });
}

// As tests/test_explorables.py, which cannot where there is no node: numbers that zotutor computed.
const here = path.dirname(fileURLToPath(import.meta.url));
const read = (...names) => fs.readFileSync(path.join(here, ...names), "utf8");
const scripts = (...names) =>
  names.map((name) => read("../../zotutor/explorables/js", `${name}.js`)).join("\n");

function differences(found, expected, rtol, at = "") {
  if (expected === null) return [];
  if (typeof expected === "object")
    return Object.keys(expected).flatMap((k) => differences(found?.[k], expected[k], rtol, `${at}.${k}`));
  const allowed = rtol * Math.max(Math.abs(found), Math.abs(expected), 1e-2);
  const equal = typeof expected === "number" ? Math.abs(found - expected) <= allowed : found === expected;
  return equal ? [] : [`${at}: ${found}, expected ${expected}`];
}

for (const { chapter, name, rtol, data, cases } of JSON.parse(read("../explorable_vectors.json"))) {
  test(`${chapter}.${name} computes what zotutor does`, () => {
    const program = `"use strict";\n${scripts("core", "streams", chapter)}\nreturn explorables;`;
    const { compute } = new Function(program)()[name];
    for (const { values, result } of cases)
      assert.deepEqual(differences(compute(data, values), result, rtol), [], JSON.stringify(values));
  });
}

test("by touch, on a phone", async () => {
  const page = await site.open("book/zo_sgd.html", { viewport: PHONE, hasTouch: true });
  const root = page.locator(".zo-explorable").first();
  const slider = root.locator("input").first();
  await slider.scrollIntoViewIfNeeded();
  const before = await shown(page, root);
  const { x, y, width, height } = await slider.boundingBox();
  assert.ok(height >= 24, "too small for a finger");
  await page.touchscreen.tap(x + 0.8 * width, y + height / 2);
  assert.notDeepEqual(await shown(page, root), before);
  await page.close();
});

test("in a sandboxed frame", async () => {
  const text = fs.readFileSync(path.join(SITE, "book", "zo_sgd.html"), "utf8");
  const page = await site.open("search.html");
  await page.evaluate((block) => {
    const frame = Object.assign(document.createElement("iframe"), { srcdoc: block });
    frame.sandbox = "allow-scripts";
    document.body.append(frame);
  }, BLOCK.exec(text)[0]);
  const frame = page.frameLocator("iframe");
  await frame.locator(".zo-answer").waitFor();
  const before = await frame.locator(".zo-answer").textContent();
  await frame.locator("input").first().focus();
  await page.keyboard.press("ArrowRight");
  await page.waitForFunction(() => true);
  await frame.locator(".zo-answer", { hasNotText: before }).waitFor();
  await page.close();
});
