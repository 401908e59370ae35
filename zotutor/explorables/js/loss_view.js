// The loss's view: how long an estimate is, and how large a step may be.

const explorables = {
  stable_step: {
    controls: () => [
      { name: "d", label: "Parameters d", choices: range(9).map((k) => 2 ** (k + 4)), start: 256 },
      { name: "decay", label: "Curvatures k^(−decay): decay", choices: [0, 0.25, 0.5, 0.75, 1, 1.5, 2], start: 1 },
      { name: "P", label: "Perturbations P", choices: powers(10), start: 4 },
      { name: "family", label: "Directions", select: true, choices: ["Gaussian", "Rademacher", "Sparse(0.1)"] },
    ],

    compute(_, { d, decay, P, family }) {
      const h = range(d).map((k) => (k + 1) ** -decay);
      const kappa = kurtosis(family);
      const trace = sum(h);
      return {
        trace, // and intrinsic dimension: the largest curvature is 1
        length: 1 + (d + kappa - 2) / P,
        lr: stableStep(h, P, kappa),
        lrs: powers(10).map((n) => stableStep(h, n, kappa)),
      };
    },

    show(view, { trace, length, lr, lrs }, { d, P, family }) {
      const Ps = powers(10);
      const ds = range(9).map((k) => 2 ** (k + 4));
      const kappa = kurtosis(family);
      view
        .plot({
          panels: 2,
          title: "E|ĝ|² / |g|²",
          label: `Squared length of the estimate against d: ${number(length)} at ${d}`,
          x: { label: "parameters d", range: [16, 4096], log: true },
          y: { label: "squared length", range: [1, 1e4], log: true },
        })
        .line(ds, ds.map((x) => 1 + (x + kappa - 2) / P), { color: ORANGE })
        .points([d], [length], { size: 7, ring: true });
      view
        .plot({
          panels: 2,
          title: "largest stable step",
          label: `Largest stable step against P, over gradient descent's: ${number(lr / 2)} at ${P}`,
          x: { label: "perturbations P", range: [1, 1024], log: true },
          y: { label: "over gradient descent's", range: [1e-4, 1.5], log: true },
        })
        .line(Ps, lrs.map((x) => x / 2), { color: ORANGE })
        .line(Ps, Ps.map((n) => 1 / (1 + (1 + d) / n)), { dash: "6 4" })
        .points([P], [lr / 2], { size: 7, ring: true })
        .legend([["this spectrum", ORANGE, "line"], ["all that d allows", TEXT, "dash"]], { right: true, down: 170 });
      view.say(
        `d = ${number(d)}, tr H / λ = ${number(trace)}, P = ${P}, κ = ${number(kappa)}: ` +
        `E|ĝ|² = ${number(length)} |g|². The largest stable step is ${number(lr)} / λ, that is ` +
        `${number(lr / 2)} of gradient descent's; d alone would allow ${number(1 / (1 + (1 + d) / P))}.`,
      );
    },
  },
};

function powers(most) {
  return range(most + 1).map((k) => 2 ** k);
}

/**
 * The largest step for which all second moments of theta stay bounded, on a quadratic with these
 * curvatures along the axes: the root of sum_k (lr / P) h_k / (2 - (1 + (kappa - 2) / P) lr h_k) = 1.
 */
function stableStep(h, P, kappa) {
  const stretch = 1 + (kappa - 2) / P;
  const top = Math.max(...h);
  let low = 0;
  let high = Math.min((2 * P) / sum(h), stretch > 0 ? 2 / (stretch * top) : Infinity);
  for (const _ of range(60)) {
    const lr = (low + high) / 2;
    const noise = sum(h.map((x) => ((lr / P) * x) / (2 - stretch * lr * x)));
    if (noise < 1) low = lr;
    else high = lr;
  }
  return low;
}
