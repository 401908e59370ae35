// What the pages of this book do beyond their theme. No library, and nothing is fetched.
"use strict";

// What is wider than the page scrolls, and whoever has no mouse scrolls it by the arrow keys: it
// becomes a stop for the tab key, and only as long as it is too wide.
const WIDE =
  "mjx-container[display=true], .highlight pre, .output pre, .pst-scrollable-table-container, .scrolls";
const INLINE = ".bd-article mjx-container:not([display])";

function markScrolling() {
  for (const box of document.querySelectorAll(WIDE)) {
    mark(box, box.scrollWidth > box.clientWidth + 1);
  }
  // A formula within a line has no width of its own: it is too wide where it leaves the page.
  const right = document.querySelector(".bd-article")?.getBoundingClientRect().right;
  const inline = [...document.querySelectorAll(INLINE)];
  for (const box of inline) box.classList.remove("is-scrolling");
  const leaving = inline.filter((box) => box.getBoundingClientRect().right > right + 1);
  for (const box of inline) mark(box, leaving.includes(box) && !box.closest(WIDE));
}

function mark(box, scrolls) {
  box.classList.toggle("is-scrolling", scrolls);
  if (scrolls && !box.hasAttribute("tabindex")) {
    box.tabIndex = 0;
    box.dataset.stop = "";
  } else if (!scrolls && "stop" in box.dataset) {
    box.removeAttribute("tabindex");
    delete box.dataset.stop;
  }
}

function whenTypeset(then) {
  const ready = window.MathJax?.startup?.promise;
  if (ready) ready.then(then);
  else window.addEventListener("load", () => window.MathJax?.startup?.promise?.then(then) ?? then());
}

let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(markScrolling, 150);
});
document.addEventListener("toggle", markScrolling, true); // a folded box that opens
document.addEventListener("DOMContentLoaded", markScrolling);
whenTypeset(markScrolling);

// Previews: what a link or a symbol refers to, while the pointer or the focus is on it.
function texOf(math) {
  const item = [...(window.MathJax?.startup?.document?.math ?? [])]
    .find(({ typesetRoot }) => typesetRoot && math.contains(typesetRoot));
  return item?.math.trim();
}

const root = document.documentElement.dataset.content_root ?? "./";
const hint = document.createElement("div");
hint.id = "preview";
hint.setAttribute("role", "tooltip");
hint.hidden = true;
let hintFor = null;
let hintTimer;
let loading;

function previews() {
  loading ??= new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = `${root}_static/previews.js`;
    script.onload = () => resolve(window.PREVIEWS);
    script.onerror = () => resolve({ links: {}, symbols: {} });
    document.head.append(script);
  });
  return loading;
}

function subject(element) {
  const link = element.closest?.(".bd-article a[href*='#']");
  if (link && !link.classList.contains("headerlink")) {
    const page = new URL(root, location.href).pathname;
    const url = new URL(link.href);
    const key = decodeURIComponent(url.pathname).slice(decodeURIComponent(page).length) + decodeURIComponent(url.hash);
    return { element: link, kind: "links", key };
  }
  const math = element.closest?.(".bd-article span.math");
  const tex = math && texOf(math);
  if (tex) return { element: math, kind: "symbols", key: tex };
  return null;
}

function hide() {
  clearTimeout(hintTimer);
  hintFor?.removeAttribute("aria-describedby");
  hintFor = null;
  hint.hidden = true;
}

async function show({ element, kind, key }) {
  const found = (await previews())[kind]?.[key];
  if (!found || hintFor !== element) return;
  hint.innerHTML = found;
  hint.hidden = false;
  if (kind === "links") element.setAttribute("aria-describedby", "preview");
  await window.MathJax?.typesetPromise?.([hint]);
  const at = element.getBoundingClientRect();
  const width = Math.min(640, innerWidth - 24);
  hint.style.width = `${width}px`;
  hint.style.left = `${Math.max(12, Math.min(at.left, innerWidth - width - 12)) + scrollX}px`;
  const above = at.bottom + hint.offsetHeight + 8 > innerHeight && at.top > hint.offsetHeight + 8;
  hint.style.top = `${(above ? at.top - hint.offsetHeight - 6 : at.bottom + 6) + scrollY}px`;
}

function come(event) {
  if (event.target === hint || hint.contains(event.target)) {
    clearTimeout(hintTimer);
    return;
  }
  const found = subject(event.target);
  if (!found || found.element === hintFor) {
    if (found) clearTimeout(hintTimer);
    return;
  }
  hide();
  hintFor = found.element;
  hintTimer = setTimeout(() => show(found), 250);
}

function go() {
  clearTimeout(hintTimer);
  hintTimer = setTimeout(hide, 200); // time to move into what is shown
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelector(".bd-main")?.append(hint);
  document.addEventListener("mouseover", come);
  document.addEventListener("mouseout", go);
  document.addEventListener("focusin", come);
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
});

// On paper everything is unfolded, and black on white; afterwards the page is as it was.
let folded = [];
let theme = "";
window.addEventListener("beforeprint", () => {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const box of folded) box.open = true;
  for (const box of document.querySelectorAll(".toggle-hidden")) {
    box.classList.remove("toggle-hidden");
    folded.push(box);
  }
  // What is shorter than half a page stays in one piece; what is longer begins where it stands.
  for (const box of document.querySelectorAll(".cell_input, .output, div.highlight"))
    box.classList.toggle("fits-a-page", box.offsetHeight < 450);
});
window.addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = theme;
  for (const box of folded) {
    if (box.tagName === "DETAILS") box.open = false;
    else box.classList.add("toggle-hidden");
  }
});
