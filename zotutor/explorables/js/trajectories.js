// Stored runs against the T P law.

const explorables = {
  tp_law: {
    controls: ({ steps, Ps }) => [
      { name: "T", label: "Steps T", choices: steps, start: steps[steps.length - 1] },
      { name: "P", label: "Perturbations per step P", choices: Ps },
    ],

    compute({ steps, Ps, deviation, constant }, { T, P }) {
      const runs = deviation[steps.indexOf(T)][Ps.indexOf(P)];
      const seen = rms(runs);
      return { runs, seen, law: constant / Math.sqrt(T * P), constant: seen * Math.sqrt(T * P) };
    },

    show(view, { runs, seen, law, constant }, { T, P }, data) {
      const { steps, Ps } = data;
      const products = steps.flatMap((t) => Ps.map((p) => t * p));
      const ends = [Math.min(...products) / 1.5, Math.max(...products) * 1.5];
      const all = data.deviation.flat(2);
      const plot = view.plot({
        label: `Deviation from gradient descent against T P: ${number(seen)} at ${T * P}, law ${number(law)}`,
        x: { label: "directions spent, T P", range: ends, log: true },
        y: { label: "deviation / total change", range: [Math.min(...all) / 2, Math.max(...all) * 2], log: true },
      });
      steps.forEach((t, i) => Ps.forEach((p, j) => {
        const cell = data.deviation[i][j];
        plot.points(cell.map(() => t * p), cell, { color: TEXT, size: 2.5, opacity: 0.2 });
      }));
      plot
        .line(ends, ends.map((x) => data.constant / Math.sqrt(x)), { dash: "6 4" })
        .points(runs.map(() => T * P), runs, { opacity: 0.6 })
        .points([T * P], [seen], { size: 8, ring: true })
        .legend([["C / √(T P), no fit", TEXT, "dash"], [`runs of T = ${T}, P = ${P}`, ORANGE, "point"]], { right: true });
      const equal = steps.flatMap((t) => Ps.filter((p) => t * p === T * P && t !== T).map((p) => `(${t}, ${p})`));
      view.say(
        `T = ${T}, P = ${P}: the ${runs.length} runs end ${number(seen)} of the total change away ` +
        `(root mean square), the law says ${number(law)}. Times √(T P): ${number(constant)}, C = ` +
        `${number(data.constant)}.${equal.length ? ` The same T P: ${equal.join(", ")}.` : ""}`,
      );
    },
  },
};
