"""Means, powers and correlations, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zotutor.statistics import correlation, mean_with_error, power, rms, rms_with_error

X = np.random.default_rng(0).normal(1.0, 0.3, 50)


@pytest.mark.parametrize("values", [X, torch.from_numpy(X), X.tolist()], ids=["array", "t", "list"])
def test_means_are_numpys(values: torch.Tensor) -> None:
    assert rms(values) == pytest.approx(np.sqrt((X**2).mean()))
    mean, error = mean_with_error(values)
    assert (mean, error) == pytest.approx((X.mean(), X.std(ddof=1) / np.sqrt(50)))


def test_the_error_of_a_root_mean_square_is_that_of_repeated_draws() -> None:
    draws = torch.randn(4000, 50, generator=torch.Generator().manual_seed(0))
    found = torch.tensor([rms_with_error(row) for row in draws])
    assert found[:, 1].mean() == pytest.approx(float(found[:, 0].std()), rel=0.05)
    assert found[0, 0].item() == pytest.approx(rms(draws[0]))


def test_a_power_is_a_straight_line_on_logarithmic_axes() -> None:
    x = np.array([1.0, 2.0, 5.0, 7.0])
    y = 3 * x**-1.7 * np.exp(0.1 * np.sin(x))
    assert power(x, y) == pytest.approx(np.polyfit(np.log(x), np.log(y), 1)[0])


def test_correlation_is_numpys() -> None:
    a, b = torch.from_numpy(X).view(5, 10), torch.from_numpy(X**2 + np.cos(X)).view(5, 10)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a.flatten(), b.flatten())[0, 1])


@pytest.mark.parametrize(
    ("x", "y"),
    [([1.0], [1.0]), ([1, 2], [1, 2, 3]), ([1, 0], [1, 1]), ([1, 2], [1, -1]), ([2, 2], [1, 2])],
)
def test_what_has_no_power_is_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        power(x, y)


def test_too_few_numbers_are_refused() -> None:
    for function in (rms, rms_with_error, mean_with_error):
        with pytest.raises(ValueError, match="at least"):
            function([])
    with pytest.raises(ValueError, match="shape"):
        correlation(torch.zeros(2), torch.zeros(3))
