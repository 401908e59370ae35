// Every page: nothing from another origin, nothing on the console, formulas typeset, code whole, nothing
// wider than a phone, no accessibility violation in either theme at either width.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AXE, DESK, PAGES, PHONE, browse } from "./site.mjs";

let site;
before(async () => { site = await browse(); });
after(() => site.close());

// What axe finds. In the dark theme only colors differ.
const COLORS = { runOnly: { type: "rule", values: ["color-contrast", "link-in-text-block"] } };

async function violations(page, theme, viewport) {
  await page.setViewportSize(viewport);
  await page.evaluate((name) => {
    document.documentElement.dataset.theme = name;
    document.documentElement.dataset.mode = name;
  }, theme);
  await page.evaluate(() => new Promise((done) => setTimeout(done, 300)));
  const found = await page.evaluate(async (rules) => {
    const { violations } = await axe.run(document, { resultTypes: ["violations"], ...rules });
    return violations.map((v) => `${v.id}, ${v.nodes.length} times: ${v.nodes[0].html.slice(0, 200)}`);
  }, theme === "dark" ? COLORS : {});
  return found.map((line) => `${theme}, ${viewport.width} px: ${line}`);
}

for (const name of PAGES) {
  test(name, async () => {
    const page = await site.open(name);
    try {
      assert.deepEqual(page.complaints, []);

      const raw = await page.evaluate(() =>
        document.body.innerText.match(/.{0,30}\\[([][^\n]{0,40}/g));
      assert.equal(raw, null, "formulas that were not typeset");

      const broken = await page.locator("mjx-merror").allTextContents();
      assert.deepEqual(broken, [], "formulas that MathJax does not understand");

      const stops = await page.evaluate(() =>
        [...document.querySelectorAll("mjx-container")]
          .filter((box) => box.tabIndex >= 0 && !box.classList.contains("is-scrolling")).length);
      assert.equal(stops, 0, "formulas that the tab key stops at");

      const cut = await page.evaluate(() =>
        [...document.querySelectorAll(".cell_input pre, .cell_output pre")]
          .filter((box) => box.clientWidth && box.scrollWidth > box.clientWidth + 1)
          .map((box) => box.textContent.split("\n").sort((a, b) => b.length - a.length)[0]));
      assert.deepEqual(cut, [], "code or output that is cut at 1280 px");

      await page.evaluate(AXE);
      const wrong = [];
      for (const viewport of [DESK, PHONE])
        for (const theme of ["light", "dark"])
          wrong.push(...await violations(page, theme, viewport));
      assert.deepEqual(wrong, []);

      const [wide, screen] = await page.evaluate(() =>
        [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(wide <= screen, `${wide} px wide on a screen of ${screen} px`);
    } finally {
      await page.close();
    }
  });
}
