// Structured directions: what one looks like, and what it does to the error.

const DRAWS = 2000;

const explorables = {
  structured: {
    controls: () => [
      {
        name: "family", label: "Directions", select: true, start: "LowRank(1)",
        choices: ["Rademacher", "Gaussian", "Sparse(0.5)", "Sparse(0.1)", "Sparse(0.02)",
          "LowRank(1)", "LowRank(2)", "LowRank(4)", "LowRank(8)"],
      },
      { name: "which", label: "Show direction", choices: range(20) },
    ],

    compute({ M, N, seed }, { family, which }) {
      const [m, n] = [M.length, M[0].length];
      const [left, right] = [M.flat(), N.flat()];
      const exact = dot(left, right);
      const off = range(DRAWS).map((p) => {
        const u = matrix(family, m, n, { seed, p }).flat();
        return dot(left, u) * dot(right, u) - exact;
      });
      const gaussian = dot(left, left) * dot(right, right) + exact ** 2;
      const law = (gaussian + excess(family, M, N)) / gaussian;
      const drawn = sum(off.map((x) => x * x)) / DRAWS / gaussian;
      return { direction: matrix(family, m, n, { seed, p: which }), sample: off[which] + exact, exact, law, drawn };
    },

    show(view, { direction: u, sample, exact, law, drawn }, { family, which }, { where }) {
      view.heat(u, { title: `u, ${family}`, limit: 3, across: 18, label: `Direction ${which} of ${family} as a matrix` });
      view
        .plot({
          panels: 2,
          label: `Variance over that of Gaussian directions: ${number(drawn)} in draws, law ${number(law)}`,
          x: { label: "variance / Gaussian", range: [0.5, 100], log: true },
          y: { label: "", range: [0, 2], ticks: [] },
        })
        .line([1, 1], [0, 2], { dash: "2 4", width: 1 })
        .line([law, law], [0.2, 1.8], { dash: "6 4" })
        .points([drawn], [1], { size: 8 })
        .legend([["law", TEXT, "dash"], [`${DRAWS} draws`, ORANGE, "point"]], { right: true });
      view.say(
        `${family} in ${where}: this direction makes of b · g = ${number(exact)} ` +
        `(b · u)(u · g) = ${number(sample)}. Variance over that of Gaussian directions: ` +
        `${number(drawn)} in ${DRAWS} draws, by the law ${number(law)}.`,
      );
    },
  },
};

/** Direction u_p of one matrix parameter, (m, n). */
function matrix(family, m, n, { seed, p }) {
  const rank = /^LowRank\((\d+)\)$/.exec(family)?.[1];
  if (!rank) {
    const u = direction(family, m * n, { seed, p });
    return range(m).map((i) => Array.from(u.slice(i * n, (i + 1) * n)));
  }
  const r = Number(rank);
  const A = normals(stream(seed, 0, p, 0), m * r);
  const B = normals(stream(seed, 0, p, 0, 1), n * r);
  return range(m).map((i) => range(n).map((j) => {
    let total = 0;
    for (let k = 0; k < r; k++) total += A[i * r + k] * B[j * r + k];
    return total / Math.sqrt(r);
  }));
}

/** What a family adds to the Gaussian variance of (M . u)(N . u). */
function excess(family, M, N) {
  const square = (X) => sum(X.flat().map((x) => x * x));
  const rank = /^LowRank\((\d+)\)$/.exec(family)?.[1];
  if (!rank) {
    const both = sum(M.flatMap((row, i) => row.map((x, j) => (x * N[i][j]) ** 2)));
    return (kurtosis(family) - 3) * both;
  }
  const outer = M.map((a) => N.map((b) => dot(a, b))); // M N^T
  const inner = transpose(M).map((a) => transpose(N).map((b) => dot(a, b))); // M^T N
  const trace = sum(inner.flatMap((row, i) => row.map((x, j) => x * inner[j][i])));
  return (2 * square(outer) + 2 * trace + 2 * square(inner)) / Number(rank);
}
