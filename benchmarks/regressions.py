"""Fail if a ratio has become worse than in the committed record of the same type of machine.

python -m benchmarks.regressions FOLDER

FOLDER holds new records, as ``python -m benchmarks --output FOLDER`` writes them. Ratios are
compared, never seconds: those of two runs on a shared machine differ by more than any change of the
program.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .__main__ import RECORDS

FACTOR = 1.5
"""How much worse a ratio may become."""


def ratios(record: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """The ratio of each (case, way), the base left out."""
    return {
        (case["case"], row["way"]): row["ratio"]
        for case in record["cases"]
        for row in case["ways"]
        if row["way"] != case["base"]
    }


def compare(new: Mapping[str, Any], committed: Mapping[str, Any] | None) -> tuple[list[str], bool]:
    """Lines for one comparison, and whether it passes.

    Args:
        new: a record.
        committed: the committed record of the same comparison and machine type; None if none is.

    Returns:
        A line for each ratio that became worse by more than :data:`FACTOR`, or that is in one of
        the records only; a line that says so if there is nothing to compare with. It fails for the
        worse ones, and if the records have no ratio in common.
    """
    name = new["comparison"]
    if committed is None or committed["machine"] != new["machine"]:
        return [f"{name}: skipped, no record of {new['machine']} is committed"], True
    before, after = ratios(committed), ratios(new)
    lines, passes = [], bool(before.keys() & after.keys())
    if not passes:
        lines.append(f"{name}: the records have no ratio in common; commit a new record")
    for key in sorted(before.keys() | after.keys()):
        here = f"{name}, {key[0]}: {key[1]}"
        if key not in after:
            lines.append(f"{here}: not measured this time")
        elif key not in before:
            lines.append(f"{here}: not in the committed record")
        elif after[key] > FACTOR * before[key]:
            passes = False
            lines.append(
                f"{here}: {after[key]} times the base, {before[key]} on {committed['date']}; "
                f"worse by {after[key] / before[key]:.2f}, more than {FACTOR}"
            )
    return lines, passes


def check(folder: Path, records: Path = RECORDS) -> tuple[list[str], bool]:
    """:func:`compare` for all records in ``folder``, which has the layout of ``records``.

    Raises:
        FileNotFoundError: for a folder without records.
    """
    found = sorted(folder.glob("*/*.json"))
    if not found:
        raise FileNotFoundError(
            f"{folder}: holds no records; write them with python -m benchmarks --output {folder}"
        )
    lines, passes = [], True
    for path in found:
        committed = records / path.relative_to(folder)
        before = json.loads(committed.read_text(encoding="utf-8")) if committed.exists() else None
        more, passed = compare(json.loads(path.read_text(encoding="utf-8")), before)
        lines += more or [f"{path.stem}: no ratio is worse by {FACTOR}"]
        passes = passes and passed
    return lines, passes


def main() -> None:
    """Print the lines; exit with 1 if a comparison fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regressions", description=__doc__)
    parser.add_argument("folder", type=Path)
    lines, passes = check(parser.parse_args().folder)
    print("\n".join(lines))
    sys.exit(0 if passes else 1)


if __name__ == "__main__":
    main()
