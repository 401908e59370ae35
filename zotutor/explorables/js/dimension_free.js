// K_U of several networks, drawn from the inner products of their Jacobians' rows alone.

const DRAWS = 64;

const explorables = {
  gram_sweep: {
    controls: ({ sweeps }) => [
      { name: "sweep", label: "Sweep", select: true, choices: sweeps.map(({ name }) => name) },
      { name: "P", label: "Perturbations P", choices: [1, 2, 4, 8, 16, 32], start: 8 },
    ],

    // root root^T is the Gram matrix of the 2 V rows, and root times a normal vector the 2 V
    // numbers (J_o u, J_u u) of a Gaussian direction u, however many parameters there are
    compute({ sweeps, seed }, { sweep, P }) {
      const { values, roots } = sweeps.find(({ name }) => name === sweep);
      const networks = roots.map((root) => {
        const V = root.length / 2;
        const inner = (i, j) => dot(root[i].slice(0, Math.min(i, j) + 1), root[j]);
        const K = range(V).map((i) => range(V).map((j) => inner(V + j, i)));
        const size = sum(K.flat().map((x) => x * x));
        const [left, right] = [0, V].map((k) => sum(range(V).map((i) => inner(k + i, k + i))));
        const errors = range(DRAWS).map((step) => {
          const off = K.map((row) => row.map((x) => -x));
          for (let p = 0; p < P; p++) {
            const u = normals(stream(seed, step, p, 0), 2 * V);
            const seen = root.map((row) => dot(row, u));
            for (let i = 0; i < V; i++) for (let j = 0; j < V; j++) off[i][j] += (seen[i] * seen[V + j]) / P;
          }
          return Math.sqrt(sum(off.flat().map((x) => x * x)) / size);
        });
        const a = size / left / right;
        return { a, errors, law: Math.sqrt((1 / a + 1) / P) };
      });
      return { values, networks };
    },

    show(view, { values, networks }, { sweep, P }, { sweeps }) {
      const { symbol } = sweeps.find(({ name }) => name === sweep);
      const [first, last] = [values[0], values[values.length - 1]];
      const laws = networks.map(({ law }) => law);
      const seen = networks.map(({ errors }) => rms(errors));
      const told = networks.map((_, k) => `${number(seen[k])} (${number(laws[k])})`);
      const plot = view.plot({
        label: `Relative error of K_U against ${symbol}, P = ${P}: ${told.join(", ")}`,
        x: { label: symbol, range: [first / 1.4, last * 1.4], log: true },
        y: { label: "relative error of K_U", range: [0.1, 1000], log: true },
      });
      networks.forEach(({ errors }, k) =>
        plot.points(errors.map(() => values[k]), errors, { size: 2.5, opacity: 0.25 }));
      plot.points(values, seen, { size: 7, ring: true }).line(values, laws, { dash: "6 4" });
      const legend = [[`${DRAWS} draws; ring: their RMS`, ORANGE, "point"], ["law, √((1/a + 1) / P)", TEXT, "dash"]];
      if (symbol === "d") {
        plot.line(values, values.map((d) => Math.sqrt((d + 1) / P)), { color: GREEN });
        legend.push(["the gradient's error, √((d + 1) / P)", GREEN, "line"]);
      }
      plot.legend(legend);
      view.say(
        `P = ${P}; error drawn (law) at ${symbol} = ` +
        `${networks.map((_, k) => `${number(values[k])}: ${told[k]}`).join("; ")}.`,
      );
    },
  },
};
