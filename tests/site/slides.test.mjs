// The slides of every chapter: they fit a projector, keys turn them, and they load nothing else.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { AXE, SITE, browse } from "./site.mjs";

const PROJECTOR = { width: 1280, height: 720 };
const NAMES = fs.readdirSync(path.join(SITE, "slides")).filter((name) => name.endsWith(".html")).sort();

let site;
before(async () => { site = await browse(); });
after(() => site.close());

test("there are slides for every session of the syllabus", () => {
  const page = fs.readFileSync(path.join(SITE, "book", "instructors.html"), "utf8");
  const named = [...page.matchAll(/href="\.\.\/slides\/(\w+\.html)"/g)].map((found) => found[1]);
  assert.deepEqual([...new Set(named)].sort(), NAMES);
});

for (const name of NAMES) {
  test(`slides/${name}`, async () => {
    const page = await site.open(`slides/${name}`, { viewport: PROJECTOR });
    try {
      await page.waitForFunction(() => document.documentElement.dataset.ready);
      const cut = await page.evaluate(() => [...document.querySelectorAll(".slide")]
        .filter((slide) => slide.scrollHeight > innerHeight + 1 || slide.scrollWidth > innerWidth + 1)
        .map((slide) => slide.id));
      assert.deepEqual(cut, [], "slides that are larger than the screen");
      const raw = await page.evaluate(() => document.body.innerText.match(/.{0,30}\\[([][^\n]{0,40}/g));
      assert.equal(raw, null, "formulas that were not typeset");

      const place = () => page.locator("#place").textContent();
      const total = (await place()).split(" / ")[1];
      for (const [key, where] of [["ArrowRight", 2], ["Space", 3], ["ArrowLeft", 2], ["End", total], ["Home", 1]]) {
        await page.keyboard.press(key);
        assert.equal(await place(), `${where} / ${total}`, key);
      }
      assert.deepEqual(page.complaints, []);

      await page.evaluate(AXE);
      for (const theme of ["light", "dark"]) {
        const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
        assert.deepEqual(violations.map((v) => `${theme}: ${v.id}: ${v.nodes[0].html.slice(0, 200)}`), []);
        await page.keyboard.press("d");
      }
    } finally {
      await page.close();
    }
  });
}
