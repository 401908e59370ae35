// K_U from the first P of the stored directions, entry by entry.

const explorables = {
  entries: {
    controls: ({ names, seen }) => [
      { name: "observed", label: "Observed input", select: true, choices: names },
      { name: "learned", label: "Updated-on input", select: true, choices: names, start: names[1] },
      { name: "P", label: "Directions P", choices: range(seen[0][0].length).map((p) => p + 1), start: Math.min(16, seen[0][0].length) },
      { name: "row", label: "Entry: row", choices: range(seen[0].length) },
      { name: "column", label: "Entry: column", choices: range(seen[0].length) },
    ],

    // seen[n][i][p] = (J_n u_p)_i, so that K_U = (1/P) sum_p (J_o u_p) (J_u u_p)^T
    compute({ names, seen, K, norms, overlaps }, { observed, learned, P, row, column }) {
      const [o, u] = [names.indexOf(observed), names.indexOf(learned)];
      const exact = K[o][u];
      const K_U = seen[o].map((left) =>
        seen[u].map((right) => dot(left.slice(0, P), right.slice(0, P)) / P));
      let total = 0;
      const path = seen[o][row].map((x, p) => (total += x * seen[u][column][p]) / (p + 1));
      const size = sum(exact.flat().map((x) => x * x));
      const off = sum(exact.flatMap((line, i) => line.map((x, j) => (K_U[i][j] - x) ** 2)));
      const law = (norms[o] * norms[u] + size - 2 * overlaps[o][u]) / P;
      return { K: exact, K_U, path, error: Math.sqrt(off / size), law: Math.sqrt(law / size) };
    },

    show(view, { K, K_U, path, error, law }, { P, row, column }) {
      const classes = range(K.length).map(String);
      const limit = Math.max(...K.flat().map(Math.abs)) * 1.2;
      const axes = { rows: classes, columns: classes, limit, mark: [row, column] };
      view.heat(K, { ...axes, title: "K", label: "First-order block K" });
      view.heat(K_U, { ...axes, title: `K_U, P = ${P}`, label: `Zeroth-order block, off by ${number(error)}` });
      const exact = K[row][column];
      const far = Math.max(...path.slice(7).map((x) => Math.abs(x - exact)), Math.abs(exact)) * 1.3;
      view
        .plot({
          label: `Entry (${row}, ${column}) of K_U against P: ${number(path[P - 1])}, exactly ${number(exact)}`,
          x: { label: "directions P", range: [1, path.length], log: true },
          y: { label: `entry (${row}, ${column})`, range: [exact - far, exact + far] },
        })
        .line(range(path.length).map((p) => p + 1), path, { color: ORANGE })
        .line([1, path.length], [exact, exact], { color: BLUE, dash: "6 4" })
        .points([P], [path[P - 1]], { size: 7, ring: true })
        .legend([["K_U", ORANGE, "line"], ["K", BLUE, "dash"]], { right: true });
      view.say(
        `P = ${P}: entry (${row}, ${column}) is ${number(path[P - 1])}, exactly ${number(exact)}. ` +
        `The whole block is off by ${number(error)} of its norm; the law says ${number(law)}.`,
      );
    },
  },
};
