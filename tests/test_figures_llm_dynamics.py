"""Each figure of the chapter on language models draws, shows what it is given, and is closed."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import zotutor as zo


def closed(drawn: Figure) -> Figure:
    drawn.canvas.draw()
    assert isinstance(drawn, Figure)
    assert not plt.get_fignums()
    return drawn


@pytest.mark.parametrize("order", ["FO", "ZO"])
def test_next_token_changes_has_a_bar_and_a_tick_for_each_token(order: Any) -> None:
    texts = [["the", "film"], ["a", "dull", "plot"]]
    predicted = [torch.tensor([0.1, -0.2]), torch.tensor([0.0, 0.3, 0.1])]
    seen = [torch.tensor([0.1, -0.1]), torch.tensor([0.0, 0.2, 0.1])]
    drawn = closed(
        zo.figures.next_token_changes(texts, predicted, seen, order=order, title="a step")
    )
    top, bottom = drawn.axes
    assert [bar.get_height() for bar in top.patches] == pytest.approx([0.1, -0.1])  # type: ignore[attr-defined]
    np.testing.assert_allclose(bottom.get_lines()[0].get_ydata(), [0.0, 0.3, 0.1], rtol=1e-6)  # type: ignore[arg-type]
    assert [label.get_text() for label in bottom.get_xticklabels()] == texts[1]
    assert top.get_ylim() == bottom.get_ylim()
    assert top.get_ylim()[0] < -0.2
    assert top.get_ylim()[1] > 0.3


def test_similarity_maps_shows_every_cosine() -> None:
    maps = {"pretrained": torch.eye(2), "random": torch.tensor([[1.0, -0.9], [-0.04, 1.0]])}
    drawn = closed(zo.figures.similarity_maps(maps, ["one", "two"], split=1))
    left, right, _ = drawn.axes
    assert [text.get_text() for text in right.texts] == ["1.0", "-0.9", "0.0", "1.0"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["one  1", "two  2"]
    assert left.get_title() == "pretrained"


def test_similarity_of_pairs_shares_its_axis() -> None:
    panels = {
        "a": (torch.tensor([0.1, 0.4, 0.5]), torch.tensor([-0.5, -0.1])),
        "b": (torch.tensor([0.0, 0.1]), torch.tensor([0.0, 0.2])),
    }
    drawn = closed(zo.figures.similarity_of_pairs(panels, xlabel="cosine", names=("same", "other")))
    left, right = drawn.axes
    assert left.get_xlim() == right.get_xlim()
    legend = right.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["same", "other"]


def study_of(name: str, deviations: list[float]) -> dict[str, Any]:
    """A model's entry in the table, with one run for each of P = 1, 4."""
    runs = [
        {"family": family, "P": P, "seed": 0, "deviation": [0.0, 0.5 * end, end]}
        for family in ("gaussian", "rademacher")
        for P, end in zip((1, 4), deviations, strict=True)
    ]
    law = {"rademacher": [0.0, 0.05, 0.1], "gaussian": [0.0, 0.05, 0.1]}
    return {"record": [0, 5, 10], "sgd_change": [0.0, 0.1, 0.2], "law": law, "runs": runs}


def test_run_deviations_draws_the_law_as_it_is_without_a_fit() -> None:
    models = {"one": study_of("one", [0.1, 0.06]), "two": study_of("two", [9.0, 9.0])}
    drawn = closed(zo.figures.run_deviations(models))
    for left, right in (drawn.axes[:2], drawn.axes[2:]):
        lines = {str(line.get_label()): line for line in left.get_lines()}
        np.testing.assert_allclose(lines["law"].get_ydata(), [0.1, 0.05])  # type: ignore[arg-type]
        lines = {str(line.get_label()): line for line in right.get_lines()}
        np.testing.assert_allclose(lines["law, $P = 4$"].get_ydata(), [0.0, 0.025, 0.05])  # type: ignore[arg-type]
        np.testing.assert_allclose(lines["change by SGD"].get_ydata(), [0.0, 0.1, 0.2])  # type: ignore[arg-type]
    points = {str(line.get_label()): line for line in drawn.axes[0].get_lines()}
    np.testing.assert_allclose(points["signs"].get_ydata(), [0.1, 0.06])  # type: ignore[arg-type]
