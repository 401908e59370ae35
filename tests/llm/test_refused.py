"""A refused run leaves everything as it was, wherever it was refused, so that the next one can run.

A refusal is any error but an interrupt, a full disk or a lost process. The places: none, a new
folder, one in a new folder, an empty one, the folder of a run.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the extra `llm` is not installed")

from small import save_model, toy_task

from zotutor import NonFiniteLossError
from zotutor.llm import LedgerError, RunError, RunStoppedError, finetune, finetuning, load
from zotutor.llm.runs import disk, folder
from zotutor.llm.runs.ledger import Ledger, Step, read, record_size
from zotutor.llm.stepping import ZerothOrder

PLACES = ["new", "above/new", "empty", "killed", "run"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(save_model(tmp_path_factory.mktemp("model"), layers=1))


@pytest.fixture
def run(small: tuple[Any, Any]) -> Callable[..., Any]:
    def go(output: Path, **options: Any) -> Any:
        given: dict[str, Any] = {"steps": 6, "lr": 0.01, "batch_size": 2, "hash_every": 2}
        given |= {"seed": 3, "progress": False, "task": toy_task(), "evaluate_every": 2} | options
        return finetune(copy.deepcopy(small[0]), small[1], output=output, **given)

    return go


@pytest.fixture
def place(request: pytest.FixtureRequest, run: Callable[..., Any], tmp_path: Path) -> Path:
    name: str = request.param
    where = tmp_path / "work" / name
    (tmp_path / "work").mkdir()
    if name == "empty":
        where.mkdir()
    if name == "killed":  # by SIGKILL, before anything was written
        where.mkdir()
        (where / "lock").touch()
    if name == "run":
        run(where, steps=3)
        (where / "plot.png").unlink()
        with (where / "ledger.bin").open("ab") as file:
            file.write(b"a record that is half there")
        os.truncate(where / "metrics.jsonl", 100)
    return where


everywhere = pytest.mark.parametrize("place", PLACES, indirect=True, ids=PLACES)


def snapshot(top: Path) -> dict[str, bytes | None]:
    """Everything below a folder: contents of files, None for folders."""
    return {
        os.fspath(path.relative_to(top)): None if path.is_dir() else path.read_bytes()
        for path in sorted(top.rglob("*"))
    }


def raises(error: Exception) -> Callable[..., Any]:
    def raising(*args: Any, **options: Any) -> Any:
        raise error

    return raising


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        NotImplementedError("no"),
        NonFiniteLossError("no"),
        RuntimeError("no"),
        MemoryError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("where", "place"),
    [*(("measure", place) for place in PLACES), ("take", "run")],
    indirect=["place"],
)
def test_the_first_new_step_refuses(
    error: Exception,
    where: str,
    run: Callable[..., Any],
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it is measured; or, of a run that is there, while the steps of the past are taken."""
    before = snapshot(tmp_path / "work")
    with monkeypatch.context() as patch:
        patch.setattr(ZerothOrder, where, raises(error))
        with pytest.raises(type(error), match="no"):
            run(place)
    assert snapshot(tmp_path / "work") == before
    found = run(place)
    assert len(found.losses) == 6
    assert len(read(place / "ledger.bin").steps) == 6


@everywhere
def test_an_evaluation_refuses(
    run: Callable[..., Any], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tmp_path / "work")
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "right_answers", raises(ValueError("no")))
        with pytest.raises(ValueError, match="no"):
            run(place)
    assert snapshot(tmp_path / "work") == before


@everywhere
def test_another_process_has_it(run: Callable[..., Any], place: Path, tmp_path: Path) -> None:
    held = disk.Claim(place)
    before = snapshot(tmp_path / "work")
    with pytest.raises(RunError, match="another process is writing to"):
        run(place)
    assert snapshot(tmp_path / "work") == before
    held.release(keep=False)
    assert snapshot(tmp_path / "work").keys() == before.keys() - made_by_claim(place, tmp_path)
    run(place)


def made_by_claim(place: Path, tmp_path: Path) -> set[str]:
    if place.name == "new":
        below = place.relative_to(tmp_path / "work")
        return {os.fspath(p) for p in (below, below / "lock", *below.parents)} - {"."}
    return {"empty/lock"} if place.name == "empty" else set()


@everywhere
def test_the_disk_has_no_room_for_it(
    run: Callable[..., Any], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tmp_path / "work")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "check_free_space", raises(RunStoppedError("no room")))
        with pytest.raises(RunStoppedError, match="no room"):
            run(place)
    assert snapshot(tmp_path / "work") == before


@pytest.mark.parametrize(
    "name", ["x" * 300, "a/b/" + "x" * 300, "file/x", "a/../file/x/y"], ids=lambda name: name[:9]
)
def test_a_folder_that_cannot_be_made_leaves_none_above_it(
    run: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"^output: .*(choose|change)"):
        run(tmp_path / name)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("place", ["run"], indirect=True)
def test_a_hash_that_is_not_met_changes_nothing(
    run: Callable[..., Any], place: Path, tmp_path: Path
) -> None:
    contents = read(place / "ledger.bin")
    (place / "ledger.bin").unlink()
    with Ledger.create(place / "ledger.bin", contents.header) as book:
        for record in contents.records:
            number = record.number
            changed = isinstance(record, Step) and number == 1
            book.append(record._replace(coefficients=(9.0,)) if changed else record)  # type: ignore[call-arg]
    before = snapshot(tmp_path / "work")
    with pytest.raises(LedgerError, match="the weights have SHA-256"):
        run(place)
    assert snapshot(tmp_path / "work") == before


@pytest.mark.parametrize("name", ["ledger.bin", "metrics.jsonl", "plot.png", "config.json"])
@pytest.mark.parametrize("place", ["run"], indirect=True)
def test_a_folder_where_a_file_belongs_is_refused_before_any_work(
    run: Callable[..., Any], place: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / name).unlink(missing_ok=True)
    (place / name).mkdir()
    before = snapshot(tmp_path / "work")
    monkeypatch.setattr(ZerothOrder, "take", raises(AssertionError("work")))
    with pytest.raises((RunError, LedgerError), match=name):
        run(place)
    assert snapshot(tmp_path / "work") == before


# ---- after the first step there is no refusal ---------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("odd"), TypeError("odd"), PermissionError("odd")])
def test_an_error_between_steps_says_what_is_kept_and_resumes(
    error: Exception, run: Callable[..., Any], tmp_path: Path
) -> None:
    run(tmp_path / "never")
    measure = ZerothOrder.measure

    def measuring(self: ZerothOrder, *args: Any, **options: Any) -> Any:
        if self.optimizer.steps_taken == 3:
            raise error
        return measure(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZerothOrder, "measure", measuring)
        with pytest.raises(RunStoppedError, match=r"3 steps are written down, .* odd; remove the"):
            run(tmp_path / "run")
    run(tmp_path / "run")
    for name in ("ledger.bin", "metrics.jsonl", "config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()


def test_a_loss_that_is_not_finite_later_says_that_the_folder_is_taken(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(NonFiniteLossError) as caught:
        run(tmp_path / "run", lr=1e30)
    assert "give the next run, with other options, another folder" in caught.value.__notes__[-1]
    run(tmp_path / "other", lr=1e-3)


def test_an_interrupt_before_the_first_step_keeps_the_evaluation(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ZerothOrder, "measure", raises(KeyboardInterrupt()))  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run")
    assert '"accuracy"' in (tmp_path / "run" / "metrics.jsonl").read_text()
    size = (tmp_path / "run" / "ledger.bin").stat().st_size
    run(tmp_path / "run")
    assert (tmp_path / "run" / "ledger.bin").stat().st_size == size + 9 * record_size(1)
