"""Settings for all tests."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import zotutor as zo
from zotutor import estimators

# The benchmarks are no part of what is installed. Last, so that an installed zotutor comes first.
sys.path.append(str(Path(__file__).resolve().parent.parent))

# Tensors here are small: a second thread saves nothing, and waits for its turn on a busy machine.
# More threads split sums in other places, so .ci/machines asks for them.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def pytest_runtest_setup() -> None:
    """What a test draws from torch's global generator does not depend on the tests before it."""
    torch.manual_seed(0)


class _Everything:
    def __contains__(self, _: object) -> bool:
        return True


@pytest.fixture
def quiet() -> Iterator[None]:
    """For tests of many kinds of model: without warnings that are not about this package."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="transformers")  # about small configurations
        # torch, about a hook on a module whose input is data
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No closure is checked: for tests whose losses are made up, one after the other."""
    measure = estimators.projected_gradients_at

    def without_check(*args: Any, **options: Any) -> estimators.Projection:
        return measure(*args, **{"checked": True} | options)

    monkeypatch.setattr(estimators, "projected_gradients_at", without_check)
    monkeypatch.setattr(zo.ZOSGD, "_checked", _Everything())


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C reaches the tests and what they start, whoever started them.

    A process that ignores SIGINT (`nohup make test`, some CI runners) hands that on to its
    children. A handler that is set here is not handed on: children begin with the default one.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
