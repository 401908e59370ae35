"""Malformed command lines, data and folders: success or one clear line, and nothing else changed.

All in one process, a case takes some milliseconds. Exit code 3 or 4 is right only where a case says
so; a traceback, a wait without end or a file left behind never is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the extra `llm` is not installed")
pytest.importorskip("typer", reason="the extra `llm` is not installed")

import malformed
from small import save_model
from typer.testing import CliRunner, Result

from zotutor.cli import app

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, links and signals as POSIX has")

TSV = b"sentence\tlabel\nthe film is bright .\t1\na very dull film .\t0\n"
JSONL = b'{"sentence": "fine", "label": 1}\n{"sentence": "dull", "label": 0}\n'

STOPS = {
    ("finetune", "lr", "1e300"): 4,
    ("finetune", "P", malformed.HUGE): 3,
}
"""Cases that are neither malformed nor feasible, by exit code."""


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, data, a finished run, and everything odd."""
    top = tmp_path_factory.mktemp("top")
    save_model(top / "model", layers=1)
    (top / "data").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (top / "data" / name).write_bytes(TSV)
    (top / "tree").mkdir()
    malformed.plant(top / "tree")
    done = call(words("finetune", right("finetune", top) | {"output": os.fspath(top / "done")}))
    assert done.exit_code == 0, done.output
    return top


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and no network."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "work"


def right(command: str, top: Path) -> dict[str, str]:
    """Options with which a command succeeds."""
    model, data = os.fspath(top / "model"), os.fspath(top / "data")
    if command in ("finetune", "plan", "perturbations"):
        given = {"model": model, "task": "sst2", "data": data}
        if command == "plan":
            return given | {"budget": "10", "samples": "4", "batch-size": "2"}
        if command == "perturbations":
            return given | {"inputs": "1", "samples": "2"}
        return given | {"steps": "2", "lr": "0.01", "output": "run", "batch-size": "2"}
    return {"RUN": os.fspath(top / "done")} | ({"model": model} if command == "replay" else {})


def words(command: str, options: dict[str, str]) -> list[str]:
    """The command line."""
    rest = dict(options)
    first = [rest.pop("RUN")] if "RUN" in rest else []
    return [command, *first, *(part for name in rest for part in (f"--{name}", rest[name]))]


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """An error in place of a wait without end."""

    def late(*_: Any) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def call(argv: list[str]) -> Result:
    with at_most(120):
        return CliRunner().invoke(app, argv)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def fault(done: Result, allowed: int = 1) -> str:
    """What is wrong with how a command ended; nothing if it was right."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"traceback: {done.exception!r}"
    if done.exit_code not in (0, 1, 2, allowed):
        return f"exit code {done.exit_code}: {done.stderr}"
    if done.exit_code in (1, 3, 4):
        lines = done.stderr.splitlines()
        if len(lines) != 1 or not lines[0].startswith("zotutor: ") or len(lines[0]) < 30:
            return f"not one clear line: {done.stderr!r}"
        if done.stdout:
            return f"printed: {done.stdout!r}"
    if done.exit_code == 2 and "Error: " not in done.stderr:
        return f"not understood, and not said: {done.stderr!r}"
    return ""


# ---- command lines ------------------------------------------------------------------------------


def test_there_are_enough_cases() -> None:
    assert len(list(malformed.cases())) >= 600


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command, options in malformed.OPTIONS.items() for option in options],
)
def test_a_command_line_succeeds_or_is_refused_in_one_line(
    command: str, option: str, top: Path, work: Path
) -> None:
    found = []
    before = {name: snapshot(top / name) for name in ("data", "done", "model", "tree")}
    for value in dict.fromkeys(malformed.OPTIONS[command][option]):
        given = value.replace("{tree}", os.fspath(top / "tree"))
        done = call(words(command, right(command, top) | {option: given}))
        wrong = fault(done, STOPS.get((command, option, value), 1))
        if done.exit_code in (1, 2) and list(work.iterdir()):
            wrong = wrong or f"left {[path.name for path in work.iterdir()]}"
        if wrong:
            found.append(f"{value[:60]!r}: {wrong}")
        for path in work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in [top / "tree" / name for name in ("closed", "nothing")]:
            if path.exists() and not path.is_symlink() and value.endswith(path.name):
                shutil.rmtree(path)
                path.mkdir(mode=0)
    for name, files in before.items():
        assert snapshot(top / name) == files, name
    assert not found, "\n".join(found)


@pytest.mark.parametrize("command", malformed.OPTIONS)
@pytest.mark.parametrize(
    "more",
    [
        ["--"],
        ["-"],
        ["--nothing"],
        ["--seed"],
        ["--lr="],
        ["more"],
        ["\udcff"],
        ["--quiet=1"],
        [""],
    ],
    ids=str,
)
def test_what_does_not_belong_on_a_command_line(
    command: str, more: list[str], top: Path, work: Path
) -> None:
    done = call([*words(command, right(command, top)), *more])
    assert not fault(done)
    assert done.exit_code in (0, 2)
    assert done.exit_code == 0 or not list(work.iterdir())


# ---- data ---------------------------------------------------------------------------------------

LINES: dict[str, bytes] = {
    **{f"whole file: {name}": content for name, content in malformed.JSONS.items()},
    **{
        f"one line: {name}": JSONL + content + b"\n"
        for name, content in malformed.JSONS.items()
        if content
    },
}


@pytest.mark.parametrize("ending", ["jsonl", "tsv"])
@pytest.mark.parametrize("name", LINES)
def test_data_of_any_content(ending: str, name: str, top: Path, work: Path) -> None:
    data = work.parent / "data"
    shutil.copytree(top / "data", data)
    (data / "train.tsv").unlink()
    (data / f"train.{ending}").write_bytes(LINES[name])
    done = call(words("finetune", right("finetune", top) | {"data": os.fspath(data)}))
    assert not fault(done)
    assert done.exit_code == 1
    assert not list(work.iterdir())


@pytest.mark.parametrize("column", ["sentence", "label"])
@pytest.mark.parametrize("value", malformed.TYPES, ids=lambda value: repr(value)[:20])
def test_data_of_any_type(column: str, value: Any, top: Path, work: Path) -> None:
    data = work.parent / "data"
    shutil.copytree(top / "data", data)
    (data / "train.tsv").unlink()
    (data / "row.json").write_bytes(JSONL.splitlines()[0])
    malformed.replaced(data / "row.json", column, value)
    (data / "train.jsonl").write_bytes(JSONL + (data / "row.json").read_bytes())
    done = call(words("finetune", right("finetune", top) | {"data": os.fspath(data)}))
    assert not fault(done)
    assert done.exit_code == 0 or "row 3: " in done.stderr


@pytest.mark.parametrize("file", ["train.tsv", "dev.tsv"])
@pytest.mark.parametrize("other", malformed.OTHERS)
def test_data_that_is_no_file(file: str, other: str, top: Path, work: Path) -> None:
    data = work.parent / "data"
    shutil.copytree(top / "data", data)
    malformed.OTHERS[other](data / file)
    done = call(words("finetune", right("finetune", top) | {"data": os.fspath(data)}))
    assert not fault(done)
    assert done.exit_code == 1


# ---- the folder of a run ------------------------------------------------------------------------


@pytest.fixture
def run(top: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(top / "done", tmp_path / "run"))


def all_three(run: Path, top: Path) -> list[Result]:
    """Each command on that run; a refusal changes nothing in it."""
    found = []
    for command in ("info", "replay", "finetune"):
        given = right(command, top) | {"output" if command == "finetune" else "RUN": os.fspath(run)}
        before = snapshot(run)
        found.append(call(words(command, given)))
        assert not fault(found[-1]), command
        if found[-1].exit_code == 1:
            assert snapshot(run) == before, command
    return found


CONFIGURATIONS = [("config.json", "UTF-16"), ("config.json", "half a character")]
"""Odd, but with all that `info` needs."""


@pytest.mark.parametrize("content", malformed.JSONS)
@pytest.mark.parametrize("file", ["config.json", "ledger.bin", "metrics.jsonl"])
def test_a_file_of_a_run_of_any_content(file: str, content: str, run: Path, top: Path) -> None:
    (run / file).write_bytes(malformed.JSONS[content])
    info, replay, finetune = all_three(run, top)
    assert finetune.exit_code == (0 if file == "metrics.jsonl" else 1)
    assert replay.exit_code == (1 if file == "ledger.bin" else 0)
    readable = file == "metrics.jsonl" or (file, content) in CONFIGURATIONS
    assert info.exit_code == (0 if readable else 1)


@pytest.mark.parametrize("key", ["format", "steps", "lr", "examples", "directions", "P", "device"])
@pytest.mark.parametrize("value", malformed.TYPES, ids=lambda value: repr(value)[:20])
def test_a_configuration_of_any_type(key: str, value: Any, run: Path, top: Path) -> None:
    there = json.loads((run / "config.json").read_bytes())[key]
    malformed.replaced(run / "config.json", key, value)
    _, replay, finetune = all_three(run, top)
    assert replay.exit_code == 0
    fixed = key not in ("device", "steps") and value != there  # True is 1
    assert finetune.exit_code == (1 if fixed else 0)


@pytest.mark.parametrize("key", ["step", "accuracy", "loss", "low", "examples"])
@pytest.mark.parametrize("value", malformed.TYPES, ids=lambda value: repr(value)[:20])
def test_metrics_of_any_type(key: str, value: Any, run: Path, top: Path) -> None:
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "line").write_bytes(lines[0])
    malformed.replaced(run / "line", key, value)
    (run / "metrics.jsonl").write_bytes(b"\n".join([(run / "line").read_bytes(), *lines[1:]]))
    (run / "line").unlink()
    assert [done.exit_code for done in all_three(run, top)] == [0, 0, 0]


@pytest.mark.parametrize("file", ["config.json", "ledger.bin", "metrics.jsonl", "plot.png", "lock"])
@pytest.mark.parametrize("other", malformed.OTHERS)
def test_something_else_where_a_file_of_a_run_belongs(
    file: str, other: str, run: Path, top: Path
) -> None:
    malformed.OTHERS[other](run / file)
    all_three(run, top)


HEADERS: dict[str, Any] = {
    "P": [*malformed.TYPES, 0, 1 << 40],
    "dtype": malformed.TYPES,
    "d": malformed.TYPES,
    "base": malformed.TYPES,
    "directions": [*malformed.TYPES, "cauchy", "sparse:2"],
    "eps": [*malformed.TYPES, float("1e300")],
    "momentum": malformed.TYPES,
    "weight_decay": malformed.TYPES,
    "seed": [*malformed.TYPES, 1 << 64],
}


@pytest.mark.parametrize("key", HEADERS)
def test_a_header_that_someone_forged(key: str, run: Path, top: Path) -> None:
    """The checksums of a ledger are no secret: its header may hold anything."""
    whole = (run / "ledger.bin").read_bytes()
    for value in HEADERS[key]:
        (run / "ledger.bin").write_bytes(malformed.forged(whole, key, value))
        all_three(run, top)


@pytest.mark.parametrize("text", ["deep", "a list", "null", "NaN", "long number", "nothing"])
def test_a_header_that_is_no_object(text: str, run: Path, top: Path) -> None:
    content = malformed.JSONS[text]
    (run / "ledger.bin").write_bytes(malformed.with_header(content))
    assert [done.exit_code for done in all_three(run, top)] == [1, 1, 1]


# ---- the folder of a model ----------------------------------------------------------------------

MODEL_FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def damaged_model(damage: Callable[[Path], Any], file: str, top: Path, work: Path) -> Result:
    model = work.parent / "model"
    shutil.copytree(top / "model", model)
    damage(model / file)
    done = call(words("finetune", right("finetune", top) | {"model": os.fspath(model)}))
    assert not fault(done)
    assert done.exit_code == 0 or not list(work.iterdir())
    return done


@pytest.mark.parametrize("content", malformed.JSONS)
@pytest.mark.parametrize("file", MODEL_FILES)
def test_a_file_of_a_model_of_any_content(file: str, content: str, top: Path, work: Path) -> None:
    done = damaged_model(lambda p: p.write_bytes(malformed.JSONS[content]), file, top, work)
    assert done.exit_code == 1


@pytest.mark.parametrize("file", MODEL_FILES)
@pytest.mark.parametrize("other", malformed.OTHERS)
def test_something_else_where_a_file_of_a_model_belongs(
    file: str, other: str, top: Path, work: Path
) -> None:
    damaged_model(malformed.OTHERS[other], file, top, work)


@pytest.mark.parametrize(
    "key", ["model_type", "vocab_size", "hidden_size", "architectures", "max_position_embeddings"]
)
@pytest.mark.parametrize("value", malformed.TYPES, ids=lambda value: repr(value)[:20])
def test_a_configuration_of_a_model_of_any_type(
    key: str, value: Any, top: Path, work: Path
) -> None:
    damaged_model(lambda path: malformed.replaced(path, key, value), "config.json", top, work)


@pytest.mark.parametrize(
    "index",
    [
        b"{}",
        b"[]",
        b'{"weight_map": null}',
        b'{"weight_map": {"a": "../../model/model.safetensors"}}',
        b'{"metadata": {}, "weight_map": {"a": "/etc/passwd"}}',
        b'{"metadata": {}, "weight_map": {"a": 3}}',
        b'{"metadata": {}, "weight_map": {"a": "gone.safetensors"}}',
        malformed.JSONS["deep"],
    ],
    ids=lambda index: index[:50].decode(),
)
def test_an_index_of_weights_that_points_elsewhere(index: bytes, top: Path, work: Path) -> None:
    def damage(path: Path) -> None:
        path.rename(path.with_name("model-00001-of-00001.safetensors"))
        path.with_name("model.safetensors.index.json").write_bytes(index)

    assert damaged_model(damage, "model.safetensors", top, work).exit_code == 1
