// ZO-SGD on a quadratic, step by step, with its expected loss and gradient descent.

const DIMENSION = 256;
const STEPS = 150;

const explorables = {
  quadratic: {
    controls: () => [
      { name: "P", label: "Perturbations P", choices: [1, 2, 4, 8, 16], start: 1 },
      { name: "decay", label: "Curvatures k^(−decay): decay", choices: [0, 0.5, 1, 1.5, 2], start: 1 },
      {
        name: "factor", label: "Learning rate, as a multiple of the safe one",
        choices: [0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4], start: 1,
      },
    ],

    compute({ seeds }, { P, decay, factor }) {
      const h = range(DIMENSION).map((k) => (k + 1) ** -decay);
      const trace = sum(h);
      const lr = (factor * P) / (P + 1 + trace); // the largest curvature is 1
      const loss = (theta) => dot(h, theta.map((x) => x * x)) / trace;
      const runs = seeds.map((seed) => {
        const theta = new Float64Array(DIMENSION).fill(1);
        return range(STEPS + 1).map((step) => {
          const seen = loss(theta);
          const g = theta.map((x, k) => h[k] * x);
          for (let p = 0; p < P; p++) {
            const u = signs(stream(seed, step, p, 0), DIMENSION);
            const move = (-lr / P) * dot(g, u);
            for (let k = 0; k < DIMENSION; k++) theta[k] += move * u[k];
          }
          return seen;
        });
      });
      return { lr, intrinsic: trace, runs, expected: expectedLosses(h, lr, P) };
    },

    show(view, { lr, intrinsic, runs, expected }, { P, decay, factor }) {
      const steps = range(STEPS + 1);
      const descent = steps.map((t) => sum(range(DIMENSION).map((k) => {
        const h = (k + 1) ** -decay;
        return h * (1 - h) ** (2 * t);
      })) / intrinsic);
      const last = expected[STEPS];
      const verdict = last > 1 ? "it diverges" : `expected loss ${number(last)} of the start`;
      const plot = view.plot({
        label: `Loss of ZO-SGD against steps, P = ${P}: after ${STEPS} steps ${verdict}`,
        x: { label: "steps", range: [0, STEPS] },
        y: { label: "loss / loss at the start", range: [1e-3, 10], log: true },
      });
      for (const run of runs) plot.line(steps, run, { color: ORANGE, width: 1.2 });
      plot
        .line(steps, expected, { dash: "6 4" })
        .line(steps, descent.map((x) => Math.max(x, 1e-9)), { color: BLUE })
        .legend([["ZO-SGD, three runs", ORANGE, "line"], ["their expectation", TEXT, "dash"],
          ["gradient descent", BLUE, "line"]], { right: true });
      view.say(
        `Intrinsic dimension ${number(intrinsic)} of ${DIMENSION}; η = ${number(factor)} × safe ` +
        `= ${number(lr)}. After ${STEPS} steps ${verdict}. ` +
        `Slowdown by the corollary: ${number(1 + (1 + intrinsic) / P)}.`,
      );
    },
  },
};

/** The expected loss from the mean squares m_k = E[theta_k^2], for random signs. */
function expectedLosses(h, lr, P) {
  let m = h.map(() => 1);
  return range(STEPS + 1).map(() => {
    const seen = dot(h, m) / sum(h);
    const noise = sum(h.map((x, k) => x * x * m[k])) / P;
    m = m.map((x, k) => x - 2 * lr * h[k] * x + lr * lr * ((1 - 1 / P) * h[k] * h[k] * x + noise));
    return seen;
  });
}
