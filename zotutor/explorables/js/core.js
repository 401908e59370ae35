// What every explorable shares: controls, plots, heat maps, numbers as text.
//
// An explorable is { controls(data), compute(data, values), show(view, result, values, data) }:
// `compute` is pure and is what the tests compare with zotutor; `show` draws what it returned.
// Text and axes have the color of the page's text, so that both themes work.

const BLUE = "#1a86c8"; // first order, and anything negative; as clear on black as on white
const ORANGE = "#D55E00"; // zeroth order, and anything positive
const GREEN = "#009E73";
const TEXT = "currentColor";

// ---- elements -----------------------------------------------------------------------------------

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// ---- numbers ------------------------------------------------------------------------------------

const range = (n) => Array.from({ length: n }, (_, k) => k);
const sum = (numbers) => numbers.reduce((total, x) => total + x, 0);
const dot = (a, b) => a.reduce((total, x, k) => total + x * b[k], 0);
const rms = (numbers) => Math.sqrt(sum(numbers.map((x) => x * x)) / numbers.length);
const transpose = (rows) => rows[0].map((_, k) => rows.map((row) => row[k]));

const raised = (k) => [...String(k)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");
const powerOfTen = (k) => (k === 0 ? "1" : k === 1 ? "10" : `10${raised(k)}`);

/** A number as text, to three digits, or all of an integer below a million. */
function number(x) {
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "undefined";
  if (Number.isInteger(x) && Math.abs(x) < 1e6) return x.toLocaleString("en-US").replace("-", "−");
  let k = Math.floor(Math.log10(Math.abs(x)));
  if (k >= -3 && k < 5) return String(Number(x.toPrecision(3))).replace("-", "−");
  let digits = x / 10 ** k;
  if (Math.abs(digits) > 9.95) [digits, k] = [digits / 10, k + 1];
  const shown = digits.toFixed(1).replace("-", "−");
  return shown === "1.0" ? powerOfTen(k) : `${shown} × ${powerOfTen(k)}`;
}

function linearTicks([low, high]) {
  const rough = (high - low) / 5;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((m) => m * unit >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return range(Math.floor(high / step + 1e-9) - first + 1).map((k) => {
    const at = (first + k) * step;
    return [at, number(Math.abs(at) < step / 1e6 ? 0 : at)];
  });
}

function logTicks([low, high]) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  if (last - first < 1) {
    const fine = range(12).flatMap((k) => [1, 2, 5].map((m) => m * 10 ** (first - 2 + k)));
    return fine.filter((x) => x >= low && x <= high).map((x) => [x, number(x)]);
  }
  const every = Math.ceil((last - first + 1) / 6);
  return range(Math.floor((last - first) / every) + 1).map((k) => {
    const exponent = first + k * every;
    return [10 ** exponent, Math.abs(exponent) < 4 ? number(10 ** exponent) : powerOfTen(exponent)];
  });
}

/** A range for bars that start at zero, with room above them for a legend. */
function barRange(heights) {
  const [low, high] = [Math.min(0, ...heights), Math.max(0, ...heights)];
  const whole = high - low || 1e-12;
  return [low - (low < 0 ? 0.08 * whole : 0), high + 0.4 * whole];
}

// ---- plots --------------------------------------------------------------------------------------

/** Axes with lines, points, bands and bars. An axis is { label, range: [low, high], log, ticks }. */
class Plot {
  constructor(width, height, { label, title = "", x, y }) {
    Object.assign(this, { width, height, x, y });
    this.box = { left: 66, right: 20, top: title ? 26 : 10, bottom: 44 };
    this.root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    if (title) this.text(width / 2, 15, title, { "text-anchor": "middle" });
    this.#axes();
  }

  #share({ range: [low, high], log }, value) {
    const at = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return Math.min(Math.max(at, -0.02), 1.02); // beyond the axes: at their edge
  }

  px(value) {
    const { left, right } = this.box;
    return left + this.#share(this.x, value) * (this.width - left - right);
  }

  py(value) {
    const { top, bottom } = this.box;
    return this.height - bottom - this.#share(this.y, value) * (this.height - top - bottom);
  }

  text(at, down, content, style = {}) {
    this.root.append(svg("text", { x: at, y: down, fill: TEXT, ...style }, content));
  }

  #axes() {
    const [low, high] = [this.py(this.y.range[0]), this.py(this.y.range[1])];
    const [left, right] = [this.px(this.x.range[0]), this.px(this.x.range[1])];
    const ticksOf = (axis) => axis.ticks ?? (axis.log ? logTicks : linearTicks)(axis.range);
    const grid = (d) => svg("path", { d, stroke: TEXT, "stroke-opacity": 0.18, fill: "none" });
    for (const [value, name] of ticksOf(this.x)) {
      this.root.append(grid(`M${this.px(value)} ${low}V${high}`));
      this.text(this.px(value), low + 16, name, { "text-anchor": "middle" });
    }
    for (const [value, name] of ticksOf(this.y)) {
      this.root.append(grid(`M${left} ${this.py(value)}H${right}`));
      this.text(left - 6, this.py(value) + 4, name, { "text-anchor": "end" });
    }
    const frame = { d: `M${left} ${high}V${low}H${right}`, stroke: TEXT, fill: "none" };
    this.root.append(svg("path", frame));
    this.text((left + right) / 2, this.height - 6, this.x.label, { "text-anchor": "middle" });
    const turned = `translate(13 ${(low + high) / 2}) rotate(-90)`;
    this.text(0, 0, this.y.label, { "text-anchor": "middle", transform: turned });
  }

  line(xs, ys, { color = TEXT, dash = "", width = 2 } = {}) {
    const whole = range(xs.length).filter((k) => Number.isFinite(xs[k]) && !Number.isNaN(ys[k]));
    const d = whole.map((k, n) => `${n ? "L" : "M"}${this.px(xs[k])} ${this.py(ys[k])}`).join("");
    const style = { stroke: color, "stroke-width": width, "stroke-dasharray": dash, fill: "none" };
    this.root.append(svg("path", { d, ...style }));
    return this;
  }

  points(xs, ys, { color = ORANGE, size = 3.5, opacity = 0.8, ring = false } = {}) {
    xs.forEach((x, k) => {
      if (Number.isNaN(ys[k])) return;
      const paint = ring
        ? { fill: "none", stroke: color, "stroke-width": 2.5 }
        : { fill: color, "fill-opacity": opacity };
      this.root.append(svg("circle", { cx: this.px(x), cy: this.py(ys[k]), r: size, ...paint }));
    });
    return this;
  }

  band(xs, lows, highs, color = TEXT) {
    const edge = [...range(xs.length), ...range(xs.length).reverse()].map((k, n) => {
      const y = n < xs.length ? highs[k] : lows[k];
      return `${n ? "L" : "M"}${this.px(xs[k])} ${this.py(y)}`;
    });
    this.root.append(svg("path", { d: `${edge.join("")}Z`, fill: color, "fill-opacity": 0.15 }));
    return this;
  }

  bars(xs, heights, { color = ORANGE, width = 0.8, opacity = 0.75 } = {}) {
    xs.forEach((x, k) => {
      const [from, to] = [this.px(x - width / 2), this.px(x + width / 2)];
      const [zero, top] = [this.py(Math.max(0, this.y.range[0])), this.py(heights[k])];
      const place = { x: from, width: to - from, y: Math.min(zero, top) };
      const size = { height: Math.abs(zero - top), fill: color, "fill-opacity": opacity };
      this.root.append(svg("rect", { ...place, ...size }));
    });
    return this;
  }

  /** Names of what is drawn: [name, color, "line" | "dash" | "point" | "bar"], one below another. */
  legend(entries, { right = false, down = 0 } = {}) {
    const { top } = this.box;
    entries.forEach(([name, color, kind], n) => {
      const y = top + 12 + 17 * n + down;
      const x = right ? this.width - this.box.right - 22 : this.box.left + 12;
      const dash = kind === "dash" ? "5 3" : "";
      const path = { d: `M${x} ${y - 4}h18`, stroke: color, "stroke-width": 2.5 };
      this.root.append(
        kind === "point" || kind === "bar"
          ? svg("circle", { cx: x + 9, cy: y - 4, r: kind === "bar" ? 5 : 4, fill: color })
          : svg("path", { ...path, "stroke-dasharray": dash }),
      );
      const anchor = right ? { "text-anchor": "end" } : {};
      this.text(right ? x - 6 : x + 24, y, name, { class: "zo-legend", ...anchor });
    });
    return this;
  }
}

/**
 * A matrix as colored cells: orange above zero, blue below, stronger the larger. The cells are as
 * large as those of a matrix of `across` columns, by default its own.
 */
function heatMap(width, matrix, { label, title = "", limit, rows = [], columns = [], mark, across }) {
  const [left, top] = [rows.length ? 24 : 2, (title ? 22 : 2) + (columns.length ? 18 : 0)];
  const cell = Math.min((width - left - 4) / (across ?? matrix[0].length), 30);
  const height = top + cell * matrix.length + 4;
  const whole = left + cell * matrix[0].length + 4;
  const root = svg("svg", {
    viewBox: `0 0 ${whole} ${height}`, style: `max-width: ${whole}px`, role: "img", "aria-label": label,
  });
  const say = (x, y, text, anchor) =>
    root.append(svg("text", { x, y, fill: TEXT, "text-anchor": anchor }, text));
  if (title) say(left + (cell * matrix[0].length) / 2, 14, title, "middle");
  columns.forEach((name, j) => say(left + (j + 0.5) * cell, top - 5, name, "middle"));
  rows.forEach((name, i) => say(left - 6, top + (i + 0.5) * cell + 4, name, "end"));
  const most = limit ?? Math.max(...matrix.flat().map(Math.abs), 1e-300);
  const place = (i, j) => ({ x: left + j * cell, y: top + i * cell, width: cell, height: cell });
  matrix.forEach((row, i) =>
    row.forEach((value, j) => {
      const strength = Math.min(Math.abs(value) / most, 1);
      const paint = { fill: value > 0 ? ORANGE : BLUE, "fill-opacity": strength.toFixed(3) };
      root.append(svg("rect", { ...place(i, j), ...paint }));
    }),
  );
  const frame = { fill: "none", stroke: TEXT, "stroke-opacity": 0.4 };
  const size = { width: cell * matrix[0].length, height: cell * matrix.length };
  root.append(svg("rect", { x: left, y: top, ...size, ...frame }));
  if (mark) root.append(svg("rect", { ...place(...mark), fill: "none", stroke: TEXT, "stroke-width": 2 }));
  return root;
}

// ---- the page -----------------------------------------------------------------------------------

/** Where an explorable draws: panels next to each other where there is room, else stacked. */
class View {
  constructor(figure, answer) {
    Object.assign(this, { figure, answer });
    this.width = figure.clientWidth || 520;
  }

  /** The width of one of `count` panels. */
  panel(count) {
    const across = this.width >= 560 ? count : Math.ceil(count / 2); // three on a phone: two and one
    return Math.min((this.width - 16 * (across - 1)) / across, 640);
  }

  plot({ panels = 1, height = 290, ...options }) {
    const drawn = new Plot(this.panel(panels), height, options);
    this.add(drawn.root, panels);
    return drawn;
  }

  heat(matrix, { panels = 2, ...options }) {
    this.add(heatMap(Math.min(this.panel(panels), 340), matrix, options), panels);
  }

  add(node, panels = 1) {
    this.figure.append(html("div", { style: `width: ${this.panel(panels)}px` }, node));
  }

  /** The number, in a sentence. */
  say(text) {
    this.answer.textContent = text;
  }
}

/** A labelled slider over the entries of `choices`, or with `select` a list of them. */
function control(id, { name, label, choices, start = choices[0], select, text = number }, moved) {
  const shown = choices.map((value) => (typeof value === "string" ? value : text(value)));
  let input;
  const value = html("span", { class: "zo-value", "aria-hidden": "true" });
  if (select) {
    input = html("select", { id }, ...shown.map((word, k) => html("option", { value: k }, word)));
  } else {
    input = html("input", { id, type: "range", min: 0, max: choices.length - 1, step: 1 });
  }
  // on the control itself: JupyterLab's shortcuts would otherwise take the arrow keys that move it
  input.setAttribute("data-lm-suppress-shortcuts", "true");
  input.value = choices.indexOf(start);
  const set = () => {
    const k = Number(input.value);
    value.textContent = shown[k];
    if (!select) input.setAttribute("aria-valuetext", shown[k]);
    moved(name, choices[k]);
  };
  input.addEventListener("input", set);
  set();
  const caption = html("label", { for: id }, label);
  return html("div", { class: "zo-control" }, caption, input, ...(select ? [] : [value]));
}

/** Replace the static fallback in `root` by the controls, the picture and the number. */
function mount(root, { controls, compute, show }, data) {
  const values = {};
  const figure = html("div", { class: "zo-figure" });
  const answer = html("output", { class: "zo-answer", "aria-live": "polite" });
  let waiting = true; // until everything is there, and then between a move and its picture
  const draw = () => {
    waiting = false;
    figure.replaceChildren();
    show(new View(figure, answer), compute(data, values), values, data);
  };
  const moved = (name, value) => {
    values[name] = value;
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  };
  const all = controls(data).map((spec) => control(`${root.id}-${spec.name}`, spec, moved));
  const bar = html("div", { class: "zo-controls" }, ...all);
  root.querySelector(".zo-static").replaceWith(bar, figure, answer);
  draw();
  let drawnAt = figure.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(figure.clientWidth - drawnAt) < 2) return;
    drawnAt = figure.clientWidth;
    draw();
  }).observe(figure);
}
