// Pictures, and the probabilities of their classes before and after fine-tuning.

const explorables = {
  before_and_after: {
    controls: ({ pictures }) => [
      { name: "n", label: "Picture", choices: range(pictures.length).map((n) => n + 1) },
    ],

    compute({ labels, before, after }, { n }) {
      const y = labels[n - 1];
      const best = (p) => p.indexOf(Math.max(...p));
      const right = (all) => all.filter((p, k) => best(p) === labels[k]).length;
      return {
        y,
        from: before[n - 1][y],
        to: after[n - 1][y],
        right: [right(before), right(after)],
      };
    },

    show(view, { y, from, to, right }, { n }, { pictures, before, after }) {
      const classes = range(before[0].length);
      view.heat(pictures[n - 1], { panels: 2, title: `a ${y}`, label: `Picture ${n}, a ${y}` });
      view
        .plot({
          panels: 2,
          label: `Probability of each class for picture ${n}: that of ${y} from ${number(from)} to ${number(to)}`,
          x: { label: "class", range: [-0.6, classes.length - 0.4], ticks: classes.map((k) => [k, `${k}`]) },
          y: { label: "probability", range: [0, 1.4], ticks: [[0, "0"], [0.5, "0.5"], [1, "1"]] },
        })
        .bars(classes.map((k) => k - 0.2), before[n - 1], { width: 0.36, color: BLUE })
        .bars(classes.map((k) => k + 0.2), after[n - 1], { width: 0.36 })
        .legend([["before", BLUE, "bar"], ["after zeroth-order fine-tuning", ORANGE, "bar"]]);
      view.say(
        `Picture ${n}, a ${y}: the probability of ${y} goes from ${number(from)} to ${number(to)}. ` +
        `Of all ${pictures.length} pictures ${right[0]} are read correctly before, ${right[1]} after.`,
      );
    },
  },
};
