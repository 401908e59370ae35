// The error of an estimated gradient: sixteen estimates, drawn here, and their law.

const ESTIMATES = 16;

const explorables = {
  estimator_error: {
    controls: ({ gradient }) => [
      { name: "d", label: "Trainable parameters d", choices: powersOfTwo(gradient.length), start: 64 },
      { name: "P", label: "Perturbations P", choices: powersOfTwo(64), start: 4 },
      {
        name: "family", label: "Directions", select: true,
        choices: ["Rademacher", "Gaussian", "Sparse(0.1)"],
      },
    ],

    compute({ gradient, seed }, { d, P, family }) {
      const g = gradient.slice(0, d);
      const length = Math.sqrt(dot(g, g));
      const errors = range(ESTIMATES).map((step) => {
        const off = g.map((x) => -x);
        for (let p = 0; p < P; p++) {
          const u = direction(family, d, { seed, step, p });
          const slope = dot(g, u) / P;
          for (let k = 0; k < d; k++) off[k] += slope * u[k];
        }
        return Math.sqrt(dot(off, off)) / length;
      });
      return { errors, law: Math.sqrt((d + kurtosis(family) - 2) / P) };
    },

    show(view, { errors, law }, { d, P, family }, { gradient }) {
      const Ps = powersOfTwo(64);
      const laws = Ps.map((n) => law * Math.sqrt(P / n));
      const top = Math.sqrt(gradient.length + 28) * 2;
      const seen = rms(errors);
      const told = law === 0 ? "0, exactly" : number(law);
      view
        .plot({
          label: `Relative error of the estimate against P: measured ${number(seen)}, law ${told}`,
          x: { label: "perturbations P", range: [0.8, 80], log: true, ticks: Ps.map((n) => [n, `${n}`]) },
          y: { label: "relative error |ĝ − g| / |g|", range: [0.05, top], log: true },
        })
        .line(Ps, laws, { dash: "6 4" })
        .points(errors.map(() => P), errors.map((e) => Math.max(e, 1e-9)), { opacity: 0.35 })
        .points([P], [Math.max(seen, 1e-9)], { size: 7, ring: true })
        .legend([["law", TEXT, "dash"], [`${errors.length} estimates; ring: their RMS`, ORANGE, "point"]], { right: true });
      view.say(
        `d = ${number(d)}, P = ${P}, κ = ${number(kurtosis(family))}: root mean square error ` +
        `${number(seen)} of |g| in ${errors.length} estimates; √((d + κ − 2) / P) = ${told}.`,
      );
    },
  },
};

function powersOfTwo(most) {
  return range(Math.floor(Math.log2(most)) + 1).map((k) => 2 ** k);
}
