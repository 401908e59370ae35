// Prints pages of the built site, each into a PDF of its own:  node print.mjs FOLDER PAGE...
// tools/make_pdf.py calls it, and joins them.
import path from "node:path";
import { browse } from "./site.mjs";

const [folder, ...pages] = process.argv.slice(2);
const site = await browse();
for (const [number, name] of pages.entries()) {
  const page = await site.open(name, { fromFile: true });
  await page.evaluate(async () => {
    window.dispatchEvent(new Event("beforeprint"));
    for (const image of document.images) image.loading = "eager";
    await Promise.all([...document.images]
      .filter((image) => image.getClientRects().length)
      .map((image) => image.decode().catch(() => {})));
  });
  await page.pdf({
    path: path.join(folder, `${String(number).padStart(3, "0")}.pdf`),
    format: "A4",
    margin: { top: "18mm", bottom: "18mm", left: "18mm", right: "18mm" },
    printBackground: true,
    tagged: true,
  });
  await page.close();
  console.log(name);
}
await site.close();
