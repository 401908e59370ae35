"""The table that tools/measure_study.py writes, from runs that were made up here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_package import tool as load

tool = load("measure_study")


def put(folder: Path, name: str, **found: Any) -> None:
    """A finished run, as ``run`` leaves one."""
    setting = tool.SETTINGS["tiny"]._replace(seeds={})._asdict()
    about = {"d": 3, "record": [0, 9], "sentences": ["a"], "date": "2026-11-27", "machine": "x"}
    (folder / f"tiny-{name}.json").write_text(json.dumps(setting | about | found))


def test_deviations_are_from_sgd_and_the_law_is_per_logit(tmp_path: Path) -> None:
    put(
        tmp_path,
        "sgd",
        logits=[[[0.0, 0.0]], [[3.0, 4.0]]],
        variances={"rademacher": [0.0, 8.0], "gaussian": [0.0, 18.0]},
    )
    for P, off in ((10, 1.0), (2, 2.0)):
        logits = [[[0.0, 0.0]], [[3.0 + off, 4.0 - off]]]
        put(
            tmp_path,
            f"rademacher-{P}-0",
            family="rademacher",
            P=P,
            seed=0,
            logits=logits,
            seconds=1.6,
        )
    found = tool.collected("tiny", tmp_path)
    assert found["sgd_change"] == [0.0, pytest.approx(math.sqrt(12.5), rel=1e-3)]
    assert found["law"] == {"rademacher": [0.0, 2.0], "gaussian": [0.0, 3.0]}
    assert [run["P"] for run in found["runs"]] == [2, 10]
    assert [run["deviation"] for run in found["runs"]] == [[0.0, 2.0], [0.0, 1.0]]
    assert found["runs"][0]["end"] == [2.0, -2.0]


def test_runs_of_other_settings_are_refused(tmp_path: Path) -> None:
    logits, variances = [[[0.0, 0.0]]], {"rademacher": [0.0]}
    put(tmp_path, "sgd", logits=logits, variances=variances)
    put(tmp_path, "rademacher-1-0", family="rademacher", P=1, seed=0, logits=logits, lr=1.0)
    with pytest.raises(ValueError, match=r"rademacher-1-0\.json: is of other settings"):
        tool.collected("tiny", tmp_path)


def test_the_digest_separates_what_two_families_share(tmp_path: Path) -> None:
    # of one model: normals at (1 + s, 0), signs at (1 - s, 0), so that the shared part is (1, 0)
    times = (50, 100, 200)
    heads = ["model", "dist", "P"] + [f"zo{t}_{x}" for t in times for x in "ab"]
    lines = [",".join(heads)]
    for P, s in ((1, 2.0), (4, 0.5)):
        for dist, sign in (("gaussian", 1), ("bernoulli", -1)):
            lines.append(",".join(["m", dist, str(P)] + [f"{5 + 1 + sign * s}", "7"] * 3))
    runs, sgd = tmp_path / "runs.csv", tmp_path / "sgd.csv"
    runs.write_text("\n".join(lines) + "\n")
    sgd.write_text("model,t,a,b\n" + "".join(f"m,{t},5,7\n" for t in times))
    found = tool.digest(runs, sgd)["200"]
    assert found["P"] == [1, 4]
    assert found["mean_of_families"] == pytest.approx([math.sqrt(0.5)] * 2, rel=1e-3)
    assert found["half_difference"] == pytest.approx([math.sqrt(2), math.sqrt(0.125)], rel=1e-3)
    assert found["deviation"] == pytest.approx([math.sqrt(2.5), math.sqrt(0.625)], rel=1e-3)
    assert found["by_model"] == {"m": found["deviation"]}


def test_the_slope_is_that_of_an_exact_power_law_with_its_error() -> None:
    exact = {("m", P): torch.tensor([3.0 * P**-0.5], dtype=torch.float64) for P in (1, 4, 16)}
    assert tool.slope_of_runs(exact) == [-0.5, pytest.approx(0.0, abs=1e-6)]
    # residuals e, -2e, e at x = -h, 0, h: the error is sqrt(6 e^2 / (2 h^2)) with one degree left
    e, h = 0.1, math.log(4)
    off = {
        ("m", P): torch.tensor([math.exp(part)], dtype=torch.float64)
        for P, part in ((1, e), (4, -2 * e), (16, e))
    }
    assert tool.slope_of_runs(off) == pytest.approx([0.0, math.sqrt(3) * e / h], abs=1e-4)


def test_each_seed_of_all_cells_comes_before_the_next() -> None:
    setting = tool.SETTINGS["tiny"]._replace(seeds={"rademacher": {1: 2, 5: 1}, "gaussian": {1: 2}})
    found = list(tool.cells(setting, None, ["rademacher", "gaussian"]))
    assert found == [
        ("rademacher", 1, 0),
        ("rademacher", 5, 0),
        ("gaussian", 1, 0),
        ("rademacher", 1, 1),
        ("gaussian", 1, 1),
    ]
    assert list(tool.cells(setting, [7], ["rademacher"])) == [("rademacher", 7, 0)]
