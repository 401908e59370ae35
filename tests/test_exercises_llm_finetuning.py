"""The checkers of *Fine-tuning* accept right answers, and give a hint for wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from zotutor.exercises import check_quantum, check_steps_until_checkpoint, check_which_rounding


def spacing(loss: float) -> float:
    return 2.0 ** (math.floor(math.log2(loss)) - 7)


def which_rounding(update: float, spacing: float, steps: int) -> str:
    low, high = sorted((update, spacing - update))
    return "random" if high < steps * low else "nearest"


RIGHT: list[tuple[Callable[..., None], Any]] = [
    (check_quantum, lambda loss, eps: spacing(loss) / (2 * eps)),
    (check_which_rounding, which_rounding),
    (check_steps_until_checkpoint, lambda d, P: 2 * d // (40 + 8 * P)),
]
WRONG: list[tuple[Callable[..., None], Any, str]] = [
    (check_quantum, lambda loss, eps: None, "returned None"),
    (check_quantum, lambda loss, eps: spacing(loss), "by 2 eps"),
    (check_quantum, lambda loss, eps: 2.0**-7 / (2 * eps), "depends on the loss"),
    (check_quantum, lambda loss, eps: spacing(loss) / (3 * eps), "ratio is 0.6667 "),
    (check_which_rounding, lambda update, spacing, steps: None, "expected"),
    (check_which_rounding, lambda update, spacing, steps: "random", "its variance"),
    (check_which_rounding, lambda update, spacing, steps: "nearest", "the same error is made"),
    (
        check_which_rounding,
        lambda update, spacing, steps: "random" if steps > 5 else "nearest",
        "variances",
    ),
    (check_steps_until_checkpoint, lambda d, P: None, "returned None"),
    (check_steps_until_checkpoint, lambda d, P: 2 * d // 48, "grows with P"),
    (check_steps_until_checkpoint, lambda d, P: 4 * d // (40 + 8 * P), "float32"),
    (check_steps_until_checkpoint, lambda d, P: d // (40 + 8 * P), "takes 2 bytes"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_a_right_answer_is_accepted(
    check: Callable[..., None], answer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(answer)
    assert capsys.readouterr().out.startswith("Correct")


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_a_wrong_answer_gets_a_hint(check: Callable[..., None], answer: Any, hint: str) -> None:
    with pytest.raises(AssertionError, match=hint):
        check(answer)


def test_the_size_of_a_record_is_the_ledgers() -> None:
    from zotutor.llm.runs.ledger import record_size

    assert [record_size(P) for P in (1, 8)] == [40 + 8 * P for P in (1, 8)]
