"""The runner of the benchmarks on comparisons whose answers are known, and the check of records."""

from __future__ import annotations

import doctest
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import zotutor as zo
from benchmarks import fidelity, machine, regressions, runner, scaling, sketch, step
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


@pytest.mark.parametrize("module", [machine, runner, scaling])
def test_examples_of_the_benchmarks(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0


def test_a_step_with_another_projected_gradient_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = step.network_ways(4, 3, "cpu")
    before = [p.clone() for p in found[step.SIGNS].optimizer.param_groups[0]["params"]]
    step.check(found)
    for p, theta in zip(found[step.SIGNS].optimizer.param_groups[0]["params"], before, strict=True):
        assert torch.equal(p, theta)
    right = zo.ZOSGD.measure

    def wrong(self: zo.ZOSGD, closure: Any) -> Any:
        measured = right(self, closure)
        return measured._replace(coefficients=tuple(g + 0.1 for g in measured.coefficients))

    monkeypatch.setattr(zo.ZOSGD, "measure", wrong)
    with pytest.raises(DisagreementError, match="Rademacher: projected gradient"):
        step.check(found)


def test_seed_replay_moves_along_the_projected_gradient() -> None:
    """In float64: theta moves by -lr g z, with z the normals of the seed."""
    theta = torch.nn.Linear(3, 1, bias=False).double()
    before = theta.weight.detach().clone()
    step.seed_replay(theta, lambda: theta.weight.sum() * 1e6)
    normals = torch.empty(1, 3, dtype=torch.float64).normal_(
        generator=torch.Generator().manual_seed(0)
    )
    expected = before - step.LR * 1e6 * normals.sum() * normals
    torch.testing.assert_close(theta.weight.detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", [zo.Rademacher(), zo.Gaussian()], ids=repr)
def test_our_sketch_is_the_product_with_the_dense_directions(
    family: zo.directions.Directions,
) -> None:
    d, P = 5000, 1 << 10  # two blocks
    g = sketch.gradients(d, "cpu")
    U = family.dense([torch.empty(d, requires_grad=True)], P=P, seed=0, step=0) / P**0.5
    torch.testing.assert_close(sketch.ours(g, P, family), g @ U, rtol=1e-4, atol=1e-4)
    assert abs(sketch.gram_error(g, g)) < 1e-12


def test_time_to_an_error_is_the_probes_time_times_the_perturbations_it_takes() -> None:
    rows = [{"way": "base", "seconds": 1.0}, {"way": "ours", "seconds": 1.5}]
    case = {"base": "base", "about": {"C": {"ours": 10.0}}, "ways": rows}
    assert fidelity.derive([case]) == {"P": {"ours": 400}, "seconds": {"ours": 600.0}}


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
