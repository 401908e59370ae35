// One step, predicted from A, K and G for a chosen pair of inputs, beside the step that was taken.

const explorables = {
  one_step: {
    controls: ({ names, rates }) => [
      { name: "learned", label: "The step is taken on", select: true, choices: names, start: names[names.length - 1] },
      { name: "observed", label: "Observe", select: true, choices: names, start: names[3 % names.length] },
      { name: "lr", label: "Learning rate η", choices: rates },
    ],

    compute({ names, labels, probabilities, K }, { learned, observed, lr }) {
      const [u, o] = [names.indexOf(learned), names.indexOf(observed)];
      const pi = probabilities[o];
      const A = pi.map((_, i) => pi.map((p, j) => (i === j) - p));
      const G = probabilities[u].map((p, j) => p - (j === labels[u]));
      const moved = K[o][u].map((row) => -lr * dot(row, G)); // the logits
      return { A, G, K: K[o][u], predicted: A.map((row) => dot(row, moved)) };
    },

    show(view, { A, G, K, predicted }, { learned, observed, lr }, { names, labels, rates, measured }) {
      const [u, o] = [names.indexOf(learned), names.indexOf(observed)];
      const seen = measured[rates.indexOf(lr)][o][u];
      const classes = G.map((_, k) => `${k}`);
      const axes = { rows: classes, columns: classes, panels: 3 };
      view.heat(A, { ...axes, title: "A", label: `Softmax Jacobian A of ${observed}` });
      view.heat(K, { ...axes, title: "K", label: `Kernel block K of ${observed} and ${learned}` });
      view.heat(G.map((x) => [x]), { rows: classes, columns: [""], across: G.length, panels: 3, title: "G", label: `Residual G of ${learned}` });
      const y = labels[u];
      const told = `${number(predicted[y])} predicted, ${number(seen[y])} measured`;
      view
        .plot({
          height: 230,
          label: `Change of ${observed}'s log-probabilities; class ${y}: ${told}`,
          x: { label: "class", range: [-0.6, G.length - 0.4], ticks: classes.map((name, k) => [k, name]) },
          y: { label: "change of log π", range: barRange([...predicted, ...seen]) },
        })
        .bars(range(G.length), seen, { color: BLUE })
        .points(range(G.length), predicted, { color: TEXT, size: 5, ring: true })
        .legend([["measured", BLUE, "bar"], ["predicted, −η A K G", TEXT, "point"]]);
      const off = Math.sqrt(sum(seen.map((x, k) => (x - predicted[k]) ** 2)) / dot(seen, seen));
      view.say(
        `log π of class ${y} at ${observed} after a step on ${learned}: ${told}. ` +
        `All ${G.length} classes together: off by ${number(100 * off)} %.`,
      );
    },
  },
};
