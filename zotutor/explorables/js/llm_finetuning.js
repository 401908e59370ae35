// A ledger replayed: a seed and one number for each perturbation give the weights, bit for bit.

const explorables = {
  ledger: {
    controls: ({ steps }) => [
      { name: "t", label: "Steps replayed", choices: range(steps.length + 1), start: steps.length },
      { name: "shift", label: "Seed", select: true, choices: ["the run's", "one more"] },
    ],

    // as ZOSGD computes it for random signs in float32: the sum over p, then theta, each rounded
    compute({ seed, parameter, base, steps, final }, { t, shift }) {
      const used = seed + (shift === "one more" ? 1 : 0);
      const theta = Float32Array.from(base);
      steps.slice(0, t).forEach(({ lr, coefficients }, step) => {
        const P = coefficients.length;
        const update = new Float32Array(theta.length);
        coefficients.forEach((g, p) => {
          const weight = Math.fround((-lr / P) * g);
          const u = signs(stream(used, step, p, parameter), theta.length);
          for (let k = 0; k < theta.length; k++) update[k] += weight * u[k];
        });
        for (let k = 0; k < theta.length; k++) theta[k] += update[k];
      });
      const weights = Array.from(theta);
      return { weights, equal: weights.filter((x, k) => Object.is(x, Math.fround(final[k]))).length };
    },

    show(view, { weights, equal }, { t, shift }, { base, final, steps, columns, where }) {
      const rows = (flat) => range(flat.length / columns).map((r) => flat.slice(r * columns, (r + 1) * columns));
      const change = weights.map((x, k) => x - Math.fround(base[k]));
      const whole = final.map((x, k) => Math.fround(x) - Math.fround(base[k]));
      const limit = Math.max(...whole.map(Math.abs), 1e-12);
      view.heat(rows(change), { title: `replayed here, ${t} steps`, limit, label: `Change of ${where} after ${t} steps, replayed` });
      view.heat(rows(whole), { title: `the run, ${steps.length} steps`, limit, label: `Change of ${where} in the run` });
      const bytes = steps.length * (40 + 8 * steps[0].coefficients.length);
      view.say(
        `${t} of ${steps.length} steps with ${shift === "one more" ? "another seed" : "the run's seed"}: ` +
        `${equal} of ${weights.length} weights of ${where} have the run's final bits. ` +
        `Ledger: ${number(bytes)} bytes.`,
      );
    },
  },
};
