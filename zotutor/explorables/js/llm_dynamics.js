// Which tokens a step moves, from stored responses along each direction.

const FIRST = "first order";

const explorables = {
  moved_tokens: {
    controls: ({ texts, slopes }) => [
      { name: "learned", label: "The step is taken on text", choices: texts.map((_, k) => k + 1), start: 1 },
      {
        name: "P", label: "Directions P (last: first order)",
        choices: [...range(Math.floor(Math.log2(slopes[0].length)) + 1).map((k) => 2 ** k), FIRST],
        start: 16,
      },
      { name: "shown", label: "Bars for text", choices: texts.map((_, k) => k + 1), start: 1 },
    ],

    // slopes[k][p] = g_k . u_p of text k's loss, responses[p][i] = b_i . u_p of place i
    compute({ lr, first, slopes, responses }, { learned, P }) {
      const k = learned - 1;
      const exact = first[k].map((x) => -lr * x);
      if (P === FIRST) return { exact, moved: exact };
      const moved = exact.map((_, i) =>
        (-lr / P) * sum(range(P).map((p) => slopes[k][p] * responses[p][i])));
      return { exact, moved };
    },

    show(view, { exact, moved }, { learned, P, shown }, { texts, lr }) {
      const most = Math.max(...moved.map(Math.abs), 1e-12);
      const places = texts.map((_, n) => sum(texts.slice(0, n).map(({ pieces }) => pieces.length - 1)));
      const lines = texts.map(({ pieces }, n) => {
        const words = pieces.map((piece, k) => {
          const change = k ? moved[places[n] + k - 1] : 0; // nothing predicts the first
          const color = change > 0 ? ORANGE : BLUE;
          const part = Math.round(100 * Math.abs(change) / most);
          const paint = `color-mix(in srgb, ${color} ${part}%, transparent)`;
          return html("span", { class: "zo-token", style: `border-color: ${paint}` }, piece);
        });
        const role = n === learned - 1 ? "learned" : "observed";
        const special = /^<.*>$/.test(pieces[0]); // the token that begins every text
        return html("div", {}, `${n + 1} (${role}): `, ...words.slice(special ? 1 : 0));
      });
      view.add(html("div", { class: "zo-tokens" }, ...lines));
      const { pieces } = texts[shown - 1];
      const range_ = range(pieces.length - 1);
      const [bars, ticks] = [moved, exact].map((all) => range_.map((k) => all[places[shown - 1] + k]));
      view
        .plot({
          height: 250,
          label: `Change of log-probability of each token of text ${shown} after a step on text ${learned}`,
          x: { label: `tokens of text ${shown}`, range: [-0.6, pieces.length - 1.4], ticks: [] },
          y: { label: "change of log π", range: barRange([...bars, ...ticks]) },
        })
        .bars(range_, bars)
        .points(range_, ticks, { color: BLUE, size: 4.5, ring: true })
        .legend([[P === FIRST ? "this step" : `zeroth order, P = ${P}`, ORANGE, "bar"], ["first order", BLUE, "point"]]);
      const best = bars.reduce((at, x, i) => (Math.abs(x) > Math.abs(bars[at]) ? i : at), 0);
      const sizes = texts.map((t, n) => number(rms(moved.slice(places[n], places[n] + t.pieces.length - 1))));
      view.say(
        `A step on text ${learned} with ${P === FIRST ? FIRST : `P = ${P}`}, η = ${lr}: the largest ` +
        `change in text ${shown} is that of “${pieces[best + 1].trim()}”, ${number(bars[best])}. ` +
        `Root mean square of each text: ${sizes.join(", ")}.`,
      );
    },
  },
};
