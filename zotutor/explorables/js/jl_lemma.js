// How well P directions keep an inner product: a thousand draws, made here.

const DRAWS = 1000;
const D = 16;

const explorables = {
  distortion: {
    controls: () => [
      { name: "P", label: "Directions P", choices: [1, 2, 4, 8, 16, 32, 64], start: 8 },
      { name: "cosine", label: "Inner product α of the unit vectors", choices: [0, 0.3, 0.6, 0.9, 1], start: 0.3 },
      { name: "gamma", label: "Tolerance γ", choices: range(20).map((k) => (k + 1) / 10), start: 0.5 },
      { name: "family", label: "Directions", select: true, choices: ["Rademacher", "Gaussian"] },
    ],

    compute({ seed }, { P, cosine, gamma, family }) {
      const [v, w] = unitPair(cosine);
      const kept = range(DRAWS).map((step) => {
        let total = 0;
        for (let p = 0; p < P; p++) {
          const u = direction(family, D, { seed, step, p });
          total += dot(v, u) * dot(w, u);
        }
        return total / P;
      });
      const both = sum(v.map((x, k) => x * x * w[k] * w[k]));
      const deviation = Math.sqrt((1 + cosine ** 2 + (kurtosis(family) - 3) * both) / P);
      const bound = 2 * Math.exp((-P * (gamma - Math.log1p(gamma))) / 2);
      const outside = kept.filter((x) => Math.abs(x - cosine) > gamma).length / DRAWS;
      return { kept, deviation, outside, bound };
    },

    show(view, { kept, deviation, outside, bound }, { P, cosine, gamma, family }) {
      const [low, high] = [cosine - 3, cosine + 3];
      const width = 0.1;
      const counts = range(60).map((k) => kept.filter((x) => Math.floor((x - low) / width) === k).length / DRAWS);
      const centers = counts.map((_, k) => low + (k + 0.5) * width);
      const normal = (x) => (width / deviation / Math.sqrt(2 * Math.PI)) * Math.exp(-((x - cosine) ** 2) / 2 / deviation ** 2);
      const top = Math.max(...counts, deviation > 0.01 ? Math.min(normal(cosine), 1) : 0) * 1.45;
      const promised = bound < 1 ? number(bound) : `${number(bound)}, which says nothing`;
      const plot = view.plot({
        label: `Histogram of the kept inner product: ${number(100 * outside)} % farther than γ from α`,
        x: { label: "(Uᵀv)·(Uᵀw)", range: [low, high] },
        y: { label: "share of draws", range: [0, top] },
      });
      plot.band([low, cosine - gamma], [0, 0], [top, top]).band([cosine + gamma, high], [0, 0], [top, top]);
      plot.bars(centers, counts, { width: width * 0.95 });
      if (deviation > 0.01) {
        const xs = range(241).map((k) => low + k * 0.025);
        plot.line(xs, xs.map(normal), { dash: "6 4" });
      }
      plot
        .line([cosine, cosine], [0, top], { color: BLUE })
        .legend([[`${DRAWS} draws`, ORANGE, "bar"], ["normal, by the law", TEXT, "dash"], ["α", BLUE, "line"]]);
      view.say(
        `${family}, P = ${P}: ${number(100 * outside)} % of the draws are more than γ = ${gamma} ` +
        `from α = ${cosine}. Bound: ${promised}. Standard deviation by the law: ${number(deviation)}.`,
      );
    },
  },
};

/** Two unit vectors of 16 entries of equal size (for 0 and 1), whose inner product is `cosine`. */
function unitPair(cosine) {
  const v = range(D).map(() => 1 / 4);
  const across = range(D).map((k) => (k % 2 ? -1 : 1) / 4);
  return [v, v.map((x, k) => cosine * x + Math.sqrt(1 - cosine ** 2) * across[k])];
}
