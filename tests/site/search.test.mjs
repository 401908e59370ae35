// The search shows the page that answers first, for what readers type.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browse } from "./site.mjs";

const ANSWERS = {
  "alignment": "kernel_fidelity",
  "how many perturbations": "kernel_fidelity",
  "number of queries": "kernel_fidelity",
  "effective rank": "kernel_fidelity",
  "learning rate": "loss_view",
  "critical batch size": "loss_view",
  "johnson-lindenstrauss": "jl_lemma",
  "random projection": "jl_lemma",
  "kurtosis": "gradients_from_values",
  "finite differences": "gradients_from_values",
  "neural tangent kernel": "learning_dynamics",
  "curse of dimensionality": "dimension_free",
  "random walk": "trajectories",
  "temperature": "trajectories",
  "MeZO": "llm_finetuning",
  "memory": "llm_finetuning",
  "bfloat16": "llm_finetuning",
  "ledger": "llm_finetuning",
  "momentum": "beyond",
  "low-rank directions": "beyond",
  "adam": "beyond",
  "symbols": "notation",
};

let site;
before(async () => { site = await browse(); });
after(() => site.close());

for (const [query, answer] of Object.entries(ANSWERS)) {
  test(`${query}: ${answer}`, async () => {
    const page = await site.open(`search.html?q=${encodeURIComponent(query)}`);
    const first = page.locator("#search-results li a").first();
    await first.waitFor({ timeout: 20000 });
    const address = await first.getAttribute("href");
    assert.match(address, new RegExp(`book/${answer}\\.html`));
    await page.close();
  });
}
