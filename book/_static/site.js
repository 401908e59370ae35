// What the pages of this book do beyond their theme. No library, and nothing is fetched.
"use strict";

// What is wider than the page scrolls, and whoever has no mouse scrolls it by the arrow keys: it
// becomes a stop for the tab key, and only as long as it is too wide.
const WIDE = "mjx-container[display=true], .highlight pre, .output pre, .cell_output table, .scrolls";

function markScrolling() {
  for (const box of document.querySelectorAll(WIDE)) {
    const scrolls = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("is-scrolling", scrolls);
    if (scrolls && !box.hasAttribute("tabindex")) {
      box.tabIndex = 0;
      box.dataset.stop = "";
    } else if (!scrolls && "stop" in box.dataset) {
      box.removeAttribute("tabindex");
      delete box.dataset.stop;
    }
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
