"""Ctrl-C reaches these tests and what they start, whoever started them.

A process that ignores SIGINT (`nohup make test`, some CI runners) hands that on to its children. A
handler that is set here is not handed on: the children of a test begin with the default.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
