"""A learning rate to begin with lies where runs of models of that size have worked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zotutor.llm.rates import KNOWN, suggested_lr


def of_size(d: int) -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(d, 1, bias=False)


@pytest.mark.parametrize("known", KNOWN)
def test_a_known_size_has_its_rate(known: tuple[float, float, str]) -> None:
    found = suggested_lr(of_size(int(known[0])))
    assert found.lr == pytest.approx(known[1], rel=0.21)  # one digit
    assert known[2] in found.why


def test_rates_fall_with_the_size_and_end_with_the_table() -> None:
    rates = [suggested_lr(of_size(10**k)).lr for k in range(2, 12)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == suggested_lr(of_size(600_000)).lr
    assert rates[-1] == KNOWN[-1].lr
    assert suggested_lr(of_size(50_000_000)).lr == pytest.approx(1e-5)  # by hand: 1.1e-5


def test_momentum_and_frozen_weights() -> None:
    plain = suggested_lr(of_size(10**11))
    assert suggested_lr(of_size(10**11), momentum=0.9).lr == pytest.approx(plain.lr / 10)
    model = nn.Sequential(of_size(10**9).requires_grad_(False), of_size(1000))
    assert "for 1,000 trainable parameters" in suggested_lr(model).why
