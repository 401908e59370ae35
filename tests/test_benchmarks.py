"""The runner of the benchmarks on comparisons whose answers are known, and the check of records."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import machine, regressions, runner
from benchmarks.__main__ import NAMES, load, write
from benchmarks.runner import Case, Comparison, DisagreementError, Timed


def ways_that_take(**seconds: float) -> Callable[[str], dict[str, runner.Call]]:
    """Ways that say that they took these seconds, each with the same result."""
    return lambda _: {name: partial(Timed, taken, torch.ones(3)) for name, taken in seconds.items()}


def fake(case: Case, **options: Any) -> Comparison:
    return Comparison("fake", "a fake", lambda _: [case], **options)


def test_a_ratio_is_the_time_of_a_way_over_that_of_the_base() -> None:
    case = Case("one", ways_that_take(base=2.0, twice=4.0, half=1.0), "base", 0.0, seconds=0.0)
    record = runner.measure(fake(case, goals={("one", "half"): 0.6}), "cpu", memory=False)
    (found,) = record["cases"]
    assert {row["way"]: row["ratio"] for row in found["ways"]} == {
        "base": 1.0,
        "twice": 2.0,
        "half": 0.5,
    }
    assert all(row["rounds"] >= 3 and row["quartiles"][0] > 0 for row in found["ways"])
    assert [row.get("goal") for row in found["ways"]] == [None, None, 0.6]
    assert record["machine"] == machine.machine_type("cpu")
    assert json.loads(json.dumps(record)) == record


def test_a_way_that_sleeps_is_slower() -> None:
    ways: dict[str, runner.Call] = {"a": lambda: time.sleep(0.02), "b": lambda: None}
    case = Case("one", lambda _: ways, "a", rounds=3, wall=True)
    times = runner.times_of(case, case.prepare("cpu"), "cpu")
    assert runner.summary(times["a"])["seconds"] >= 0.02
    assert runner.summary(times["b"])["ratio"] < 0.5


def test_slow_ways_are_timed_less_often_but_three_times() -> None:
    case = Case("one", ways_that_take(base=1.0, slow=100.0), "base", seconds=60.0, rounds=9)
    times = runner.times_of(case, case.prepare("cpu"), "cpu")
    assert len(times["base"]) == 9
    assert len(times["slow"]) == 3


@pytest.mark.parametrize("wrong", [1.1, float("nan"), [1.0, 1.0]])
def test_nothing_is_timed_before_results_agree(wrong: Any) -> None:
    timed = []

    def right() -> float:
        timed.append(1)
        return 1.0

    case = Case("one", lambda _: {"right": right, "wrong": lambda: wrong}, "right", 1e-3)
    with pytest.raises(DisagreementError, match="one: wrong differs from right by"):
        runner.measure_case(fake(case), case, "cpu", memory=False)
    assert len(timed) <= 2  # the reference and itself


def test_a_case_that_lacks_something_is_skipped_with_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = Case("one", lambda _: {}, "base", missing=lambda: "fetch the model")
    assert runner.measure(fake(case, derive=lambda cases: {"n": len(cases)}), "cpu")["cases"] == []
    assert "one: skipped; fetch the model" in capsys.readouterr().out


def test_what_is_derived_sees_all_cases() -> None:
    case = Case("one", ways_that_take(base=1.0), "base", about=lambda _: {"d": 7}, seconds=0.0)
    comparison = fake(case, derive=lambda cases: {"d": [c["about"]["d"] for c in cases]})
    assert runner.measure(comparison, "cpu", memory=False)["derived"] == {"d": [7]}


@pytest.mark.skipif(not machine.has_memory_counters(), reason="needs Linux's counters")
def test_peak_counts_what_a_call_holds_at_once() -> None:
    megabytes = 64

    def two() -> None:
        for _ in range(2):  # one after the other
            torch.ones(megabytes << 18)

    # other threads of the test process may hold a little at the same time
    assert megabytes << 20 <= runner.peak_of(two, "cpu") + (4 << 20) < (megabytes + 16) << 20


def test_machine_types_name_the_processor_and_the_threads() -> None:
    words = machine.machine_type("cpu")
    assert words.endswith(("thread", "threads"))
    assert "/" not in machine.folder_name(words)


@pytest.mark.parametrize("name", NAMES)
def test_every_comparison_has_cases_with_names_of_their_own(name: str) -> None:
    comparison = load(name)
    assert comparison.name == name
    names = [case.name for case in comparison.cases("cpu")]
    assert names
    assert len(set(names)) == len(names)
    assert {case for case, _ in comparison.goals} <= set(names)


# ---- records against committed ones -----------------------------------------------------------


def record(ratio: float = 2.0, machine: str = "a box, 2 threads", way: str = "ours") -> Any:
    rows = [{"way": "base", "ratio": 1.0}, {"way": way, "ratio": ratio}]
    case = {"case": "one", "base": "base", "ways": rows}
    return {"comparison": "fake", "machine": machine, "date": "2026-11-27", "cases": [case]}


def test_a_ratio_worse_by_more_than_the_factor_fails() -> None:
    lines, passes = regressions.compare(record(3.2), record(2.0))
    assert not passes
    assert lines == [
        "fake, one: ours: 3.2 times the base, 2.0 on 2026-11-27; worse by 1.60, more than 1.5"
    ]


@pytest.mark.parametrize("ratio", [2.9, 2.0, 0.1])
def test_a_smaller_change_passes(ratio: float) -> None:
    assert regressions.compare(record(ratio), record(2.0)) == ([], True)


@pytest.mark.parametrize("committed", [None, record(1.0, machine="another box")])
def test_another_machine_is_skipped_with_a_line(committed: Any) -> None:
    lines, passes = regressions.compare(record(), committed)
    assert passes
    assert lines == ["fake: skipped, no record of a box, 2 threads is committed"]


def test_records_with_nothing_in_common_fail() -> None:
    lines, passes = regressions.compare(record(way="new"), record(way="old"))
    assert not passes
    assert "no ratio in common" in lines[0]
    assert any(line.endswith("old: not measured this time") for line in lines)


def test_folders_of_records_are_compared_file_by_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no records"):
        regressions.check(tmp_path / "new")
    write(record(2.0), tmp_path / "committed")
    write(record(2.2), tmp_path / "new")
    assert regressions.check(tmp_path / "new", tmp_path / "committed") == (
        ["fake: no ratio is worse by 1.5"],
        True,
    )
    write(record(4.0), tmp_path / "new")
    assert not regressions.check(tmp_path / "new", tmp_path / "committed")[1]
