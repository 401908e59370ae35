"""The table of claims: what counts as holding, how it is shown, and that it can fail."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from zotutor.claims import Claim, ClaimTable, check_all, measured, near


def claim(value: float, low: float = 0.9, high: float = 1.1, *, stated: bool = True) -> Claim:
    return Claim(f"claim at {value}", "a chapter", "ratio", value, low, high, stated)


@pytest.mark.parametrize(
    ("value", "holds"),
    [(0.9, True), (1.0, True), (1.1, True), (0.89, False), (1.11, False), (math.inf, False)],
)
def test_holds_inside_of_the_range(value: float, holds: bool) -> None:
    assert claim(value).holds is holds
    assert claim(value).as_stated is holds
    assert claim(value, stated=False).as_stated is not holds


@pytest.mark.parametrize("stated", [True, False])
def test_nan_is_never_as_stated(stated: bool) -> None:
    assert not claim(math.nan, stated=stated).as_stated
    with pytest.raises(AssertionError):
        check_all([claim(math.nan, stated=stated)])


def test_near_is_symmetric() -> None:
    assert near(2.0, 0.1, deviations=3) == pytest.approx((1.7, 2.3))


def test_check_all_counts() -> None:
    found = check_all([claim(1.0), claim(1.05)], [claim(3.0, stated=False)])
    assert found == "2 claims hold; 1 do not hold in general, and are stated so."


def test_check_all_names_every_failure_and_nothing_else() -> None:
    with pytest.raises(AssertionError) as caught:
        check_all([claim(1.0), claim(2.0)], ClaimTable([claim(1.01, stated=False)]))
    message = str(caught.value)
    assert message.startswith("2 not as stated")
    assert "claim at 2.0" in message
    assert "does not hold: NOT AS STATED" in message
    assert "claim at 1.01" in message
    assert "claim at 1.0\n" not in message


def test_a_statement_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        check_all([claim(1.0)], [claim(1.0)])


@pytest.mark.parametrize("limits", [(2.0, 1.0), (-math.inf, math.inf), (math.nan, 1.0)])
def test_a_range_that_decides_nothing_is_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="range"):
        ClaimTable([claim(1.0, *limits)])


def test_no_claims_are_refused() -> None:
    with pytest.raises(ValueError, match="none"):
        check_all()


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.0, 0.0, "exactly 0"),
        (0.99, math.inf, "at least 0.99"),
        (-math.inf, 1e-6, "at most 1e-06"),
        (0.95, 1.05, "0.95 to 1.05"),
        (9000.0, 12345.678, "9,000 to 12,346"),
    ],
)
def test_ranges_in_words(low: float, high: float, words: str) -> None:
    assert claim(1.0, low, high).accepted() == words


def test_html_has_a_row_for_each_claim_and_escapes() -> None:
    table = ClaimTable([claim(1.0), Claim("a < b & c", "s", "q", 2.0, high=1.0, stated=False)])
    html = table._repr_html_()
    assert html.count("<tr>") == 3
    assert "a &lt; b &amp; c" in html
    assert "does not hold, as stated" in html
    assert "<strong>" not in html
    assert "<strong>" in ClaimTable([claim(7.0)])._repr_html_()
    assert "color" not in html  # those of the page, in light and in dark mode


def test_text_says_the_same() -> None:
    assert repr(ClaimTable([claim(1.0)])) == (
        "claim at 1.0\n  a chapter; ratio: 1 (0.9 to 1.1): holds"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0, "1"), (0.99999, "1.0000"), (1234.5, "1,234"), (-0.5, "-0.5000"), (2e-16, "2.0e-16")],
)
def test_a_rounded_number_does_not_look_exact(value: float, shown: str) -> None:
    assert f": {shown} (" in repr(ClaimTable([claim(value)]))


def test_values_fill_the_rows_of_a_table_in_its_order() -> None:
    """A case has a row of its own; samples and a law stand for the mean of their ratio."""
    samples = torch.tensor([1.0, 2.0, 3.0, 6.0])
    values: dict[str, Any] = {
        "two_point_bias": 2.0,
        "forward_bias": 1.0,
        "unbiased": (1.1, 0.05),
        "squared_error": torch.tensor(1.0),
        "squared_norm": {"signs": (samples, 3.0), "normals": (samples, 1.0)},
        "probe_restores": 0,
        "walk_restores": 0.5,
        "update_direction": 0.0,
        "bfloat16_coarse": 0.05,
        "bfloat16_fine": 0.8,
        "few_enough": 4.0,
    }
    table = measured("gradients", values, facts={"d": 1234, "expected": 2})
    assert len(table) == len(values) + 1
    unbiased = table[2]
    assert "d = 1,234" in unbiased.quantity
    assert (unbiased.low, unbiased.high) == pytest.approx((0.8, 1.2))
    signs, normals = table[4:6]
    assert signs.statement.endswith("signs")
    assert signs.quantity.endswith("(4 draws)")
    error = samples.double().std().item() / 3 / 2  # of the mean of four ratios
    assert signs.value == pytest.approx(1.0)
    assert signs.high == pytest.approx(1 + 4 * error)
    assert normals.value == pytest.approx(3.0)
    assert not table[6 + 1].stated


def test_slack_widens_a_range_by_itself() -> None:
    values: dict[str, Any] = {
        "one_step": (torch.tensor([1.0, 1.0]), 1.0),
        "constant_C": (1.0, 0.01),
        "falls": -0.5,
        "steps_for_P": 1.0,
        "any_lr": 3.0,
        "summed": 1.0,
        "converges": 0.0,
    }
    found = measured("trajectories", values, facts={"constant": 4.7, "lr": 5.0})[1]
    assert (found.low, found.high) == pytest.approx((1 - 0.04 - 0.05, 1 + 0.04 + 0.05))


@pytest.mark.parametrize(
    ("table", "values", "named"),
    [
        ("poetry", {}, "expected one of gradients"),
        ("free", {"fixed_P": 1.0}, "none for alignment_stays, every_model, grows_there"),
        ("dynamics", {"first_order": 1, "missed_fo": 2, "same_digit": 2, "zeal": 1}, "zeal"),
    ],
)
def test_values_that_are_not_those_of_the_table_are_refused(
    table: str, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        measured(table, values)
