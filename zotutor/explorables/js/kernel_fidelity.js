// How many perturbations reach a relative error, for a given alignment.

const OWN = "the slider";

const explorables = {
  planner: {
    controls: ({ names }) => [
      { name: "error", label: "Relative error wanted", choices: [0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2], start: 0.5 },
      { name: "pair", label: "Take the alignment of", select: true, choices: [OWN, ...names] },
      {
        name: "alignment", label: "Alignment a, if from the slider", start: 0.05,
        choices: [0.001, 0.002, 0.005, 0.01, 0.02, 0.034, 0.05, 0.074, 0.1, 0.2, 0.5, 1],
      },
    ],

    compute({ names, alignments }, { error, pair, alignment }) {
      const a = pair === OWN ? alignment : alignments[names.indexOf(pair)];
      const needed = (1 / a + 1) / error ** 2;
      const P = Math.max(1, Math.ceil(needed - 1e-9));
      return { a, P, reached: Math.sqrt((1 / a + 1) / P) };
    },

    show(view, { a, P, reached }, { error, pair }, { names, alignments }) {
      const grid = range(61).map((k) => 10 ** (-3 + k / 20));
      const needed = (x) => Math.max(1, (1 / x + 1) / error ** 2);
      view
        .plot({
          label: `Perturbations needed against alignment, for an error of ${error}: ${number(P)} at ${number(a)}`,
          x: { label: "alignment a", range: [1e-3, 1], log: true },
          y: { label: "perturbations needed", range: [1, 1e6], log: true },
        })
        .line(grid, grid.map(needed), { dash: "6 4" })
        .points(alignments, alignments.map(needed), { color: BLUE, size: 4.5 })
        .points([a], [needed(a)], { size: 8, ring: true })
        .legend([["(1/a + 1) / error²", TEXT, "dash"], ["pairs of this chapter", BLUE, "point"],
          ["your choice", ORANGE, "point"]], { right: true });
      const whose = pair === OWN ? "" : ` (${pair})`;
      view.say(
        `Alignment ${number(a)}${whose}, relative error ${error}: P = ${number(P)} perturbations. ` +
        `With them the law says ${number(reached)}.`,
      );
    },
  },
};
