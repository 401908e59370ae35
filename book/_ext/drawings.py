"""A Sphinx extension: figures for the dark theme, and with their panels stacked for phones.

Matplotlib draws each figure once, on white, as SVG. For the dark theme white becomes the ground of
the page, and black, gray and the blue of first order become lighter; pictures in a figure, and what
is written on them, stay as they are. A figure with panels side by side is also written with them
one below the other, as far as nothing reaches from one into another: for narrow screens.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from sphinx.application import Sphinx

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"
DARK = {
    "#ffffff": "#121212",
    "#000000": "#e4e4e4",
    "#dddddd": "#3c3c3c",
    "#bbbbbb": "#5a5a5a",
    "#777777": "#a0a0a0",
    "#666666": "#b0b0b0",
    "#555555": "#b8b8b8",
    "#0072b2": "#4da3e0",
    "#d55e00": "#f07a2a",
    "#009e73": "#20c094",
}
INK = DARK["#000000"]
IMAGE = re.compile(r'<img ([^>]*?)src="([^"]*_images/)([0-9a-f]{64})\.svg"([^>]*?)/?>')
HEIGHT = 8.0  # points; of letters
COLORBAR = 30.0  # points; what is narrower belongs to the panel on its left
NARROW = "(max-width: 600px)"

ElementTree.register_namespace("", SVG.strip("{}"))
ElementTree.register_namespace("xlink", XLINK.strip("{}"))


class Box(NamedTuple):
    """A rectangle, in points."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it."""
        return self.left <= x <= self.right and self.top <= y <= self.bottom


def axes_of(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The groups of a drawing's axes."""
    return [g for g in root.iter(f"{SVG}g") if re.fullmatch(r"axes_\d+", g.get("id", ""))]


def frame(axes: ElementTree.Element) -> Box | None:
    """Where axes lie: their first patch is their ground."""
    path = axes.find(f"{SVG}g/{SVG}path")
    numbers = (
        [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", path.get("d", ""))]
        if path is not None
        else []
    )
    if len(numbers) < 8:
        return None
    xs, ys = numbers[0::2], numbers[1::2]
    return Box(min(xs), min(ys), max(xs), max(ys))


def places_of_text(text: ElementTree.Element) -> list[tuple[float, float]]:
    """Where a text begins: its left end, also of one that is turned and stands on its own right."""
    for inner in text.iter(f"{SVG}g"):
        moved = re.match(
            r"translate\(([-\d.]+) ([-\d.]+)\)( rotate\(-90\))?", inner.get("transform", "")
        )
        if moved:
            return [(float(moved[1]) - (HEIGHT if moved[3] else 0.0), float(moved[2]))]
    return []


def places(group: ElementTree.Element) -> list[tuple[float, float]]:
    """Where the texts of a group begin."""
    texts = (g for g in group.iter(f"{SVG}g") if re.fullmatch(r"text_\d+", g.get("id", "")))
    return [place for text in texts for place in places_of_text(text)]


def written_on_pictures(root: ElementTree.Element) -> set[ElementTree.Element]:
    """All elements of the texts that lie on a picture."""
    kept: set[ElementTree.Element] = set()
    for axes in axes_of(root):
        box = frame(axes)
        if box is None or next(axes.iter(f"{SVG}image"), None) is None:
            continue
        for text in axes.findall(f"{SVG}g"):
            if text.get("id", "").startswith("text_") and any(
                box.holds(*p) for p in places_of_text(text)
            ):
                kept.update(text.iter())
                text.set("style", f"{text.get('style', '')}; fill: #000000".lstrip("; "))
    return kept


def darkened(root: ElementTree.Element) -> None:
    """Color a drawing for a dark ground."""
    kept = written_on_pictures(root)
    root.set("fill", INK)  # letters have no color of their own if they are black
    for element in root.iter():
        style = element.get("style")
        if style and element not in kept:
            color = re.sub(
                r"#[0-9a-f]{6}",
                lambda found: DARK.get(found[0].lower(), found[0]),
                style,
                flags=re.I,
            )
            element.set("style", color)


class Panel(NamedTuple):
    """A panel of a drawing: its axes, and those of its color bar or below it."""

    boxes: list[Box]
    labels: list[tuple[float, float]]

    @property
    def left(self) -> float:
        """Where its axes begin."""
        return min(box.left for box in self.boxes)

    @property
    def right(self) -> float:
        """Where its axes end."""
        return max(box.right for box in self.boxes)

    @property
    def beginning(self) -> float:
        """Where its labels begin, or its ticks."""
        outside = [x for x, _ in self.labels if x < self.left - 2]
        return min(outside) - 1 if outside else self.left - 4.5

    @property
    def names_its_axis(self) -> bool:
        """Whether there is a label on the left of it."""
        box = self.boxes[0]
        return any(x < box.left - 2 and box.top < y < box.bottom for x, y in self.labels)


def panels_of(root: ElementTree.Element) -> list[Panel]:
    """The panels of a drawing, from left to right."""
    found: list[Panel] = []
    for axes in axes_of(root):
        box = frame(axes)
        if box is None:
            return []
        labels = places(axes)
        for panel in found:
            last = panel.boxes[0]
            overlap = min(last.right, box.right) - max(last.left, box.left)
            near = box.right - box.left < COLORBAR and 0 <= box.left - panel.right < COLORBAR
            if overlap > 0 or near:
                panel.boxes.append(box)
                panel.labels.extend(labels if overlap > 0 else [])
                break
        else:
            found.append(Panel([box], labels))
    return sorted(found, key=lambda panel: panel.left)


def views(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """For each panel, which strips of a drawing show it; none if they must stay side by side."""
    figure = root.find(f"{SVG}g[@id='figure_1']")
    width = float(root.get("viewBox", "0 0 0 0").split()[2])
    panels = panels_of(root)
    if figure is None or width < 400 or len(panels) < 2:
        return []
    if min(len(panel.boxes) for panel in panels) > 2:
        return []  # what lies in a row belongs together
    ends = [panel.beginning for panel in panels[1:]] + [width]
    if any(end < panel.right for end, panel in zip(ends, panels, strict=True)):
        return []  # something reaches from one panel into another
    first = panels[0]
    found = []
    for panel, end in zip(panels, ends, strict=True):
        begin = 0.0 if panel is first else panel.beginning
        strips = [(begin, end)]
        shared = first.names_its_axis and not panel.names_its_axis
        if shared and panel is not first:
            strips = [(0.0, first.left), (min(panel.left - 1, panel.beginning), end)]
        found.append(strips)
    return found


def common_texts(root: ElementTree.Element) -> tuple[Box | None, Box | None]:
    """The title over all panels of a drawing, and the label below them."""
    figure = root.find(f"{SVG}g[@id='figure_1']")
    assert figure is not None
    _, _, width, height = (float(n) for n in root.get("viewBox", "0 0 0 0").split())
    texts = [g for g in figure if g.get("id", "").startswith("text_")]
    places = [place for text in texts for place in places_of_text(text)]
    boxes = [box for panel in panels_of(root) for box in panel.boxes]
    above = [p for p in places if p[1] < min(box.top for box in boxes)]
    below = [p for p in places if p[1] > max(box.bottom for box in boxes)]

    def strip(found: list[tuple[float, float]], top: float, bottom: float) -> Box:
        left = max(min(x for x, _ in found) - 2, 0.0)
        return Box(left, top, width - left, bottom)  # these texts are centered

    return (
        strip(above, 0.0, max(y for _, y in above) + 5) if above else None,
        strip(below, min(y for _, y in below) - 11, height) if below else None,
    )


def stacked(
    root: ElementTree.Element, panels: list[list[tuple[float, float]]]
) -> ElementTree.Element:
    """A drawing with its panels one below the other; as many as fit in a row if they are small."""
    height = float(root.get("viewBox", "0 0 0 0").split()[3])
    title, label = common_texts(root)
    top, bottom = title.bottom if title else 0.0, label.top if label else height
    sizes = [sum(right - left for left, right in strips) for strips in panels]
    in_row = max(1, int(300 // max(sizes)))
    rows = [panels[k : k + in_row] for k in range(0, len(panels), in_row)]
    lengths = [sum(right - left for strips in row for left, right in strips) for row in rows]
    total_width = max([*lengths, *(box.right - box.left for box in (title, label) if box)])
    total_height = height + (bottom - top) * (len(rows) - 1)
    attributes = {k: v for k, v in root.attrib.items() if k not in ("width", "height", "viewBox")}
    found = ElementTree.Element(root.tag, attributes)
    found.set("viewBox", f"0 0 {total_width:.2f} {total_height:.2f}")
    found.set("width", f"{total_width:.2f}pt")
    found.set("height", f"{total_height:.2f}pt")
    ElementTree.SubElement(found, f"{SVG}defs").extend(copy.deepcopy(list(root)))

    def view(source: Box, x: float, y: float) -> None:
        w, h = source.right - source.left, source.bottom - source.top
        window = ElementTree.SubElement(found, f"{SVG}svg")
        window.set("viewBox", f"{source.left:.2f} {source.top:.2f} {w:.2f} {h:.2f}")
        for name, value in (("x", x), ("y", y), ("width", w), ("height", h)):
            window.set(name, f"{value:.2f}")
        ElementTree.SubElement(window, f"{SVG}use").set(f"{XLINK}href", "#figure_1")

    if title:
        view(title, 0.0, 0.0)
    for number, row in enumerate(rows):
        x = 0.0
        for left, right in (strip for strips in row for strip in strips):
            view(Box(left, top, right, bottom), x, top + (bottom - top) * number)
            x += right - left
    if label:
        view(label, 0.0, top + (bottom - top) * len(rows))
    return found


def write_variants(path: Path) -> bool:
    """Write the other versions of a drawing; whether there is a stacked one."""
    root = ElementTree.parse(path).getroot()
    panels = views(root)
    dark = copy.deepcopy(root)
    darkened(dark)
    for drawing, suffix in ((root, ""), (dark, "-dark")):
        if suffix:
            ElementTree.ElementTree(drawing).write(path.with_name(f"{path.stem}{suffix}.svg"))
        if panels:
            ElementTree.ElementTree(stacked(drawing, panels)).write(
                path.with_name(f"{path.stem}{suffix}-stacked.svg")
            )
    return bool(panels)


def show_variants(app: Sphinx, exception: Exception | None) -> None:
    """After the pages are written: write the versions, and let pages choose."""
    if exception is not None or app.builder.format != "html":
        return
    written: dict[str, bool] = {}

    def chosen(found: re.Match[str]) -> str:
        before, folder, name, after = found.groups()
        if name not in written:
            written[name] = write_variants(Path(app.outdir, "_images", f"{name}.svg"))
        shown = ""
        for theme, suffix, when in (("light", "", "eager"), ("dark", "-dark", "lazy")):
            narrow = f'<source media="{NARROW}" srcset="{folder}{name}{suffix}-stacked.svg"/>'
            shown += (
                f'<picture class="only-{theme}">{narrow if written[name] else ""}'
                f'<img class="dark-light" {before}src="{folder}{name}{suffix}.svg"{after}'
                f' loading="{when}"/></picture>'
            )
        return shown

    for path in Path(app.outdir).rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        shown = IMAGE.sub(chosen, page)
        if shown != page:
            path.write_text(shown, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; Sphinx calls this."""
    app.connect("build-finished", show_variants)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
