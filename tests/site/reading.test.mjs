// How the site is used: from a folder without a server, by keyboard, and on a phone.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { PHONE, browse } from "./site.mjs";

let site;
before(async () => { site = await browse(); });
after(() => site.close());

for (const name of ["book/intro.html", "book/kernel_fidelity.html", "search.html"]) {
  test(`${name} works from a folder, without a server`, async () => {
    const page = await site.open(name, { fromFile: true });
    assert.deepEqual(page.complaints, []);
    const fonts = await page.evaluate(async () => {
      await document.fonts.ready;
      return [...document.fonts].filter((font) => font.status === "error").map((f) => f.family);
    });
    assert.deepEqual(fonts, []);
    await page.close();
  });
}

test("every stop of the tab key shows its focus", async () => {
  const page = await site.open("book/intro.html");
  const hidden = [];
  for (let stop = 0; stop < 60; stop += 1) {
    await page.keyboard.press("Tab");
    const focus = await page.evaluate(() => {
      const element = document.activeElement;
      const style = getComputedStyle(element);
      return {
        html: element.outerHTML.slice(0, 120),
        seen: element === document.body || parseFloat(style.outlineWidth) > 1
          && style.outlineStyle !== "none",
      };
    });
    if (!focus.seen) hidden.push(focus.html);
  }
  assert.deepEqual(hidden, []);
  await page.close();
});

test("exercises show the whole name of their checker on a phone", async () => {
  const page = await site.open("book/kernel_fidelity.html", { viewport: PHONE });
  const cut = await page.evaluate(() =>
    [...document.querySelectorAll(".bd-article code")]
      .filter((code) => code.getClientRects().length && !code.closest("pre, .is-scrolling"))
      .filter((code) => code.getBoundingClientRect().right > innerWidth)
      .map((code) => code.textContent));
  assert.deepEqual(cut, []);
  await page.close();
});

test("a link to a theorem shows it, by pointer and by keyboard, and Escape hides it", async () => {
  const page = await site.open("book/kernel_fidelity.html");
  const link = page.locator('article a.reference.internal[href*="#thm-"]').first();
  const hint = page.locator("#preview");
  await link.hover();
  await hint.waitFor({ state: "visible" });
  assert.match(await hint.innerText(), /Theorem \d+/);
  await page.keyboard.press("Escape");
  await hint.waitFor({ state: "hidden" });
  await page.mouse.move(5, 5);
  await link.focus();
  await hint.waitFor({ state: "visible" });
  assert.equal(await link.getAttribute("aria-describedby"), "preview");
  assert.deepEqual(page.complaints, []);
  await page.close();
});

test("a symbol shows what it means", async () => {
  const page = await site.open("book/kernel_fidelity.html");
  const wanted = await page.evaluate(() =>
    [...document.querySelectorAll(".bd-article span.math")]
      .findIndex((math) => texOf(math) === "K_U"));
  assert.ok(wanted >= 0);
  await page.locator(".bd-article span.math").nth(wanted).hover();
  await page.locator("#preview").waitFor({ state: "visible" });
  assert.match(await page.locator("#preview").innerText(), /kernel|eNTK/i);
  await page.close();
});

test("on paper what was folded is there at once, and nothing leaves the page", async () => {
  const page = await site.open("book/beyond.html", { viewport: { width: 658, height: 986 } });
  await page.emulateMedia({ media: "print" });
  const [hidden, right] = await page.evaluate(() => {
    window.dispatchEvent(new Event("beforeprint"));
    const folded = [...document.querySelectorAll(".bd-article details > summary ~ *")];
    return [
      folded.filter((box) => getComputedStyle(box).opacity !== "1" || !box.getClientRects().length)
        .map((box) => box.outerHTML.slice(0, 120)),
      document.querySelector(".bd-article").getBoundingClientRect().right,
    ];
  });
  assert.deepEqual(hidden, []);
  assert.ok(right <= 658, `the article ends at ${right} of 658 px`);
  await page.close();
});
