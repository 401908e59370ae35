"""The runner of all comparisons: correctness, then time, then memory.

A :class:`Comparison` has cases; a :class:`Case` has ways to compute the same thing, one of which is
the base. For each case the runner

1. checks: every way's result agrees with that of the base, or the case's own check passes;
2. times: the ways take turns in one process, in an order that rotates from round to round, so that
   a busy machine slows all of them. On one thread of a CPU it is the CPU time that counts, which
   other processes change less. A ratio is the median, over the rounds, of a way's time over
   the base's time in the same round; its quartiles say how far to trust it;
3. measures memory: each way in a process of its own, the peak of the resident size during its first
   call over the size before it (on a GPU: the peak of allocated tensors).
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import machine

Call = Callable[[], Any]
"""One way, ready to run. It returns its result, or :class:`Timed` if it took its own time."""

SHORTEST = 0.01
"""Calls that take less, in seconds, are repeated within a round."""
SLOW = 8.0
"""A way that takes this many times the base is timed in every third round."""


class Timed(NamedTuple):
    """The result of a way that measured its own time, such as one in another process."""

    seconds: float
    value: Any


class DisagreementError(AssertionError):
    """Two ways computed different things; their times would mean nothing."""


@dataclass(frozen=True)
class Case:
    """One row of a comparison: the same input for all ways.

    Args:
        name: such as "MLP 64-256-256-10, 32 x 32".
        prepare: makes the inputs on a device ("cpu", "cuda") and returns the ways by name.
        base: the way that the others are compared with.
        tolerance: the largest allowed difference of a way's result from the base's, over the
            base's largest entry; None if results are not comparable.
        check: called with the ways before anything is timed; raises if they are wrong.
        about: what the table says about the case, computed on the device after the check.
        seconds: how long the timing may take; no way is timed fewer than three times.
        rounds: how many rounds at most.
        memory: whether to measure memory.
        missing: what the case needs and this machine lacks, or "" if nothing; it is skipped then.
        wall: whether to count wall time on one thread too, as for ways that start processes.
    """

    name: str
    prepare: Callable[[str], Mapping[str, Call]]
    base: str
    tolerance: float | None = None
    check: Callable[[Mapping[str, Call]], None] | None = None
    about: Callable[[str], dict[str, Any]] | None = None
    seconds: float = 20.0
    rounds: int = 15
    memory: bool = True
    missing: Callable[[], str] = str
    wall: bool = False


@dataclass(frozen=True)
class Comparison:
    """Several cases under one name.

    Args:
        name: of its file and record.
        title: a sentence: what is compared.
        cases: from the device, its cases in the order of the table.
        goals: (case, way) to the largest ratio of time that the way should have.
        derive: from the finished cases, what is computed from several of them, such as exponents.
    """

    name: str
    title: str
    cases: Callable[[str], Sequence[Case]]
    goals: Mapping[tuple[str, str], float] = field(default_factory=dict)
    derive: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None


def as_tensors(value: Any) -> list[Tensor]:
    """The tensors in a result, in float64 on the CPU: a tensor, number, array, list or dict."""
    if isinstance(value, Timed):
        return as_tensors(value.value)
    if isinstance(value, Mapping):
        return [one for part in value.values() for one in as_tensors(part)]
    if isinstance(value, (list, tuple)):
        return [one for part in value for one in as_tensors(part)]
    return [torch.as_tensor(value).detach().to("cpu", torch.float64)]


def difference(found: Any, expected: Any) -> float:
    """The largest |found - expected| over the largest |expected|; inf if shapes differ.

    >>> difference([1.0, 2.5], [1.0, 2.0])
    0.25
    """
    one, other = as_tensors(found), as_tensors(expected)
    if [tensor.shape for tensor in one] != [tensor.shape for tensor in other]:
        return float("inf")
    largest = max(float(tensor.abs().max()) for tensor in other)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / largest


def check(case: Case, ways: Mapping[str, Call]) -> dict[str, float]:
    """Run the case's checks; the difference of each way from the base, if results are compared.

    Raises:
        DisagreementError: for a way that differs from the base by more than the tolerance, or NaN.
    """
    if case.check is not None:
        case.check(ways)
    if case.tolerance is None:
        return {}
    expected = ways[case.base]()
    found = {name: difference(call(), expected) for name, call in ways.items()}
    for name, value in found.items():
        if not value <= case.tolerance:
            raise DisagreementError(
                f"{case.name}: {name} differs from {case.base} by {value:.2g} of its largest "
                f"entry, more than {case.tolerance:.2g}; correct it before timing it"
            )
    return found


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


Clock = Callable[[], float]


def clock_of(case: Case, device: str) -> Clock:
    """CPU time on one thread of a CPU, wall time otherwise."""
    cpu = device == "cpu" and torch.get_num_threads() == 1 and not case.wall
    return time.process_time if cpu else time.perf_counter


def seconds_of(call: Call, device: str, clock: Clock, times: int = 1) -> float:
    """Time of one call, the mean over ``times`` calls in a row."""
    synchronize(device)
    start = clock()
    own = 0.0
    for _ in range(times):
        result = call()
        if isinstance(result, Timed):
            own += result.seconds
    synchronize(device)
    return (own or clock() - start) / times


def times_of(case: Case, ways: Mapping[str, Call], device: str) -> dict[str, list[list[float]]]:
    """For each way, [its seconds, the base's seconds] round by round."""
    clock, first = clock_of(case, device), {}
    for name, call in ways.items():
        first[name] = seconds_of(call, device, clock)  # the warm-up
        if first[name] < 1.0:
            first[name] = max(seconds_of(call, device, clock), 1e-7)
    repeats = {name: max(1, round(SHORTEST / t)) for name, t in first.items()}
    slow = {name for name, t in first.items() if t > SLOW * first[case.base]}
    times: dict[str, list[list[float]]] = {name: [] for name in ways}
    start, names = time.perf_counter(), list(ways)
    for k in range(3 * case.rounds):
        round_names = names[k % len(names) :] + names[: k % len(names)]
        round_names = [name for name in round_names if name not in slow or k % 3 == 0]
        taken = {name: seconds_of(ways[name], device, clock, repeats[name]) for name in round_names}
        for name, value in taken.items():
            times[name].append([value, taken[case.base]])
        enough = all(len(found) >= 3 for found in times.values())
        late = time.perf_counter() - start > case.seconds or k + 1 >= case.rounds
        if enough and late:
            break
    return times


def summary(times: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Medians of a way's seconds and of its ratio to the base, with the ratio's quartiles."""
    ratios = sorted(own / base for own, base in times)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "seconds": _rounded(statistics.median(own for own, _ in times)),
        "ratio": _rounded(statistics.median(ratios)),
        "quartiles": [_rounded(low), _rounded(high)],
        "rounds": len(times),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def peak_of(call: Call, device: str) -> int:
    """How many bytes one call adds to what is held before it, at its peak."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    torch.ones(64, 64) @ torch.ones(64, 64)  # loads the libraries
    machine.forget_peak()
    before = machine.resident_bytes()
    call()
    return machine.resident_bytes(peak=True) - before


def peak_in_new_process(comparison: str, case: str, way: str, device: str) -> int:
    """:func:`peak_of` one way, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", comparison, "--memory-of", case, way]
    command += ["--device", device, "--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.strip().splitlines()[-1])


def measure_case(
    comparison: Comparison, case: Case, device: str, *, memory: bool
) -> dict[str, Any]:
    """One case: checked, timed, and its memory measured; a table printed on the way."""
    print(f"\n{case.name}", flush=True)
    ways = dict(case.prepare(device))
    differences = check(case, ways)
    times = times_of(case, ways, device)
    rows = []
    for name, found in times.items():
        row: dict[str, Any] = {"way": name, **summary(found)}
        if name in differences:
            row["difference"] = _rounded(differences[name])
        if (case.name, name) in comparison.goals:
            row["goal"] = comparison.goals[case.name, name]
        rows.append(row)
    about = case.about(device) if case.about else {}
    ways.clear()  # before other processes need the memory
    for row in rows:
        if memory and case.memory:
            row["bytes"] = peak_in_new_process(comparison.name, case.name, row["way"], device)
        print(line(row), flush=True)
    return {"case": case.name, "base": case.base, "about": about, "ways": rows}


def line(row: Mapping[str, Any]) -> str:
    """One row of the table that is printed."""
    low, high = row["quartiles"]
    text = (
        f"  {row['way']:40} {row['seconds']:10.4g} s {row['ratio']:8.3f} x ({low:.2f}, {high:.2f})"
    )
    if "bytes" in row:
        text += f" {row['bytes'] / 2**20:9.1f} MiB"
    if "goal" in row:
        text += f"  goal {row['goal']}: {'met' if row['ratio'] <= row['goal'] else 'NOT MET'}"
    return text


def measure(
    comparison: Comparison, device: str, *, memory: bool = True, only: str = ""
) -> dict[str, Any]:
    """The record of a comparison: all its cases (or those whose name contains ``only``)."""
    print(f"\n{comparison.name}: {comparison.title}", flush=True)
    cases_of = [case for case in comparison.cases(device) if only in case.name]
    for case in cases_of:
        if case.missing():
            print(f"\n{case.name}: skipped; {case.missing()}", flush=True)
    cases_of = [case for case in cases_of if not case.missing()]
    cases = [measure_case(comparison, case, device, memory=memory) for case in cases_of]
    clocks = {clock_of(case, device) for case in cases_of}
    record: dict[str, Any] = {
        "comparison": comparison.name,
        "title": comparison.title,
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks {comparison.name}",
        "machine": machine.machine_type(device),
        "device": device,
        "clock": "wall time" if time.perf_counter in clocks else "CPU time",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cases": cases,
    }
    if comparison.derive and not only and cases:
        record["derived"] = comparison.derive(cases)
    return record
