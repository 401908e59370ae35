"""A run survives: killed, interrupted, without room, it ends in the bits of one never stopped."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from small import save_model, toy_task

import zotutor as zo
from zotutor.directions import from_name, name_of
from zotutor.llm import (
    LedgerError,
    RunError,
    RunStoppedError,
    encode,
    finetune,
    ledger,
    load,
    replay,
    weights_hash,
)
from zotutor.llm.finetuning import Run
from zotutor.llm.runs import files
from zotutor.llm.runs.folder import Folder
from zotutor.llm.runs.interrupts import uninterrupted
from zotutor.llm.stepping import Batches, ZerothOrder

pytest.importorskip("transformers", reason="the extra `llm` is not installed")

STEPS = 6
WRITTEN = ("config.json", "ledger.bin", "metrics.jsonl", "plot.png")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(save_model(tmp_path_factory.mktemp("opt"), layers=1))


@pytest.fixture
def base(small: tuple[Any, Any]) -> Callable[..., Any]:
    """Makes the base model again."""

    def make(dtype: torch.dtype = torch.float32) -> Any:
        return copy.deepcopy(small[0]).to(dtype)

    return make


@pytest.fixture
def run(small: tuple[Any, Any], base: Callable[..., Any], tmp_path: Path) -> Callable[..., Run]:
    """The run of these tests, into tmp_path / "run", with other options if they are given."""

    def go(model: Any = None, output: Path | None = None, **options: Any) -> Run:
        defaults: dict[str, Any] = {
            "steps": STEPS,
            "lr": 0.01,
            "batch_size": 2,
            "evaluate_every": 2,
        }
        defaults |= {"hash_every": 4, "seed": 3, "progress": False, "task": toy_task()} | options
        where = tmp_path / "run" if output is None else output
        return finetune(model or base(), small[1], output=where, **defaults)

    return go


def contents(folder: Path) -> dict[str, bytes]:
    """What a run wrote, but for its lock."""
    names = (path.name for path in folder.iterdir() if path.name != "lock")
    return {name: (folder / name).read_bytes() for name in sorted(names)}


@contextmanager
def stopped_at(number: int, error: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """Within it a run stops while it measures this step."""
    with pytest.MonkeyPatch.context() as patch:
        whole = ZerothOrder.measure

        def measure(self: ZerothOrder, *args: Any, **options: Any) -> Any:
            if self.optimizer.steps_taken == number:
                raise error
            return whole(self, *args, **options)

        patch.setattr(ZerothOrder, "measure", measure)
        yield


# ---- killed -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="forks torch")
def test_killed_at_50_random_moments_it_ends_in_the_same_bits(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, "50", "1"],
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    assert all(found["same"].values()), found
    assert found["steps"] == found["at"] == 600
    assert len(found["places"]) == 50
    assert len(set(found["places"])) >= 20, "the kills came at different places"


def test_cut_anywhere_it_ends_in_the_same_bits(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    """What a kill can leave: a ledger cut anywhere, metrics ahead of it or behind, or cut too."""
    run(output=tmp_path / "never")
    whole = contents(tmp_path / "never")
    size = len(whole["ledger.bin"])
    for k, cut in enumerate(range(size - 8 * ledger.record_size(1), size + 1, 17)):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "never", tmp_path / "run")
        (tmp_path / "run" / "plot.png").unlink()
        os.truncate(tmp_path / "run" / "ledger.bin", cut)
        os.truncate(tmp_path / "run" / "metrics.jsonl", k * len(whole["metrics.jsonl"]) // 24)
        model = base()
        run(model)
        assert contents(tmp_path / "run") == whole
        assert (
            weights_hash(model) == ledger.read(tmp_path / "run/ledger.bin").hashes[-1].sha256.hex()
        )


@pytest.mark.parametrize("left", [(), ("config.json",), ("config.json.part", "lock")])
def test_killed_before_the_first_step_it_begins_anew(
    run: Callable[..., Run], tmp_path: Path, left: tuple[str, ...]
) -> None:
    run(output=tmp_path / "never")
    (tmp_path / "run").mkdir()
    for name in left:
        source = tmp_path / "never" / name
        (tmp_path / "run" / name).write_bytes(source.read_bytes() if source.exists() else b"{")
    run()
    found = contents(tmp_path / "run")
    assert found == contents(tmp_path / "never")


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9},
        {"weight_decay": 0.1, "schedule": "linear"},
        {"P": 3, "directions": zo.Gaussian()},
        {"P": 2, "directions": zo.LowRank(2)},
        {"directions": zo.Sparse(0.25), "dtype": torch.bfloat16},
        {"momentum": 0.5, "P": 2, "dtype": torch.bfloat16},
        {"dtype": torch.float16, "directions": zo.Sphere()},
    ],
    ids=repr,
)
def test_every_kind_of_run_resumes_and_replays_bit_for_bit(
    run: Callable[..., Run],
    base: Callable[..., Any],
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    dtype = options.pop("dtype", torch.float32)
    model, stopped, resumed, replayed = (base(dtype) for _ in range(4))
    never = run(model, output=tmp_path / "never", **options)
    with stopped_at(5), pytest.raises(KeyboardInterrupt):
        run(stopped, **options)
    again = run(resumed, **options)
    assert again.losses == never.losses
    assert again.evaluations == never.evaluations
    assert contents(tmp_path / "run") == contents(tmp_path / "never")
    found = replay(tmp_path / "run", replayed)
    assert found == (STEPS, STEPS, weights_hash(model))
    assert weights_hash(resumed) == weights_hash(replayed) == weights_hash(model)
    assert weights_hash(stopped) != weights_hash(model)
    assert {p.dtype for p in replayed.parameters()} == {dtype}


def test_a_run_with_a_ledger_takes_the_steps_of_one_without(
    run: Callable[..., Run], small: tuple[Any, Any], base: Callable[..., Any], tmp_path: Path
) -> None:
    with_one, without = base(), base()
    first = run(with_one)
    second = finetune(
        without,
        small[1],
        toy_task(),
        steps=STEPS,
        lr=0.01,
        batch_size=2,
        evaluate_every=2,
        seed=3,
        progress=False,
    )
    assert first[:4] == second[:4]
    assert weights_hash(with_one) == weights_hash(without)


# ---- interrupted --------------------------------------------------------------------------------


def test_an_interrupt_leaves_the_weights_of_the_ledger_and_says_how_to_go_on(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    model = base()
    with stopped_at(3), pytest.raises(KeyboardInterrupt) as caught:
        run(model)
    assert "3 steps are written down; the same call" in caught.value.__notes__[0]
    assert (tmp_path / "run" / "plot.png").stat().st_size > 1000
    replayed = base()
    assert replay(tmp_path / "run", replayed).steps == 3
    assert weights_hash(replayed) == weights_hash(model)


@pytest.mark.parametrize("finished", [False, True])
def test_an_interrupt_waits_until_a_step_that_is_written_down_is_taken(
    finished: bool,
    run: Callable[..., Run],
    base: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C while the weights change, the first time or replayed: a signal at the worst moment."""
    if finished:
        run()
    whole = zo.ZOSGD._update

    def interrupted(self: zo.ZOSGD, *args: Any) -> None:
        if self.steps_taken == 2:
            signal.raise_signal(signal.SIGINT)
        whole(self, *args)

    monkeypatch.setattr(zo.ZOSGD, "_update", interrupted)
    model = base()
    with pytest.raises(KeyboardInterrupt):
        run(model)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    replayed = base()
    assert finished or len(ledger.read(tmp_path / "run" / "ledger.bin").steps) == 3
    assert replay(tmp_path / "run", replayed, steps=3).steps == 3
    assert weights_hash(replayed) == weights_hash(model)


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_of_the_main_thread_no_handler_is_set() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def inside() -> Any:
        with uninterrupted():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() is signal.getsignal(signal.SIGINT)


# ---- a loss that is not finite ------------------------------------------------------------------


def test_a_loss_that_is_not_finite_leaves_the_last_good_step(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    model = base()
    with pytest.raises(zo.NonFiniteLossError) as caught:
        run(model, lr=1e30)
    taken = len(ledger.read(tmp_path / "run" / "ledger.bin").steps)
    assert taken >= 1
    assert f"step {taken} of {STEPS}" in caught.value.__notes__[0]
    assert "smaller lr (it is 1e+30)" in caught.value.__notes__[0]
    replayed = base()
    replay(tmp_path / "run", replayed)
    assert weights_hash(replayed) == weights_hash(model)
    with pytest.raises(zo.NonFiniteLossError):
        run(lr=1e30)


# ---- a full disk --------------------------------------------------------------------------------


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """A context in which files of this process have a maximum size, as on a full disk."""
    resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_out_of_room_at_any_byte_it_stops_and_goes_on(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    never = base()
    run(never, output=tmp_path / "never")
    whole = contents(tmp_path / "never")
    begin = max(len(whole["config.json"]), len(whole["ledger.bin"]) - 8 * ledger.record_size(1))
    for room in range(begin, len(whole["metrics.jsonl"]) - 1, 61):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        with full_after(room), pytest.raises(RunStoppedError, match="same again") as caught:
            run(base())
        assert "File too large" in str(caught.value) or "were written" in str(caught.value)
        resumed = base()
        run(resumed)
        assert weights_hash(resumed) == weights_hash(never)
        assert contents(tmp_path / "run") == whole


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", os.fspath(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield where
    subprocess.run(["umount", os.fspath(where)], check=True)


def test_a_disk_that_fills_up_stops_the_run_which_goes_on_when_there_is_room(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path, disk: Path
) -> None:
    never = base()
    run(never, output=tmp_path / "never", steps=60)
    other = disk / "other"
    whole = Folder.taken

    def fill(self: Folder, step: ledger.Step, *args: Any, **options: Any) -> None:
        whole(self, step, *args, **options)
        if step.number == 10 and not other.exists():
            with suppress(OSError), other.open("wb", 0) as file:
                while file.write(bytes(512)):
                    pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "taken", fill)
        with pytest.raises(RunStoppedError, match=r"No space left|were written"):
            run(output=disk / "run", steps=60)
    with pytest.raises(RunStoppedError, match=r"bytes left, and .* are needed; free space"):
        run(output=disk / "new", steps=60)
    other.unlink()
    (disk / "run" / "plot.png").unlink(missing_ok=True)
    resumed = base()
    run(resumed, output=disk / "run", steps=60)
    assert weights_hash(resumed) == weights_hash(never)
    assert contents(disk / "run") == contents(tmp_path / "never")


def test_no_room_for_the_weights_loses_nothing(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    run()
    with full_after(4096), pytest.raises(RunStoppedError, match="weights could not be written"):
        run(save=True)
    assert not (tmp_path / "run" / "weights.part").exists()
    model = base()
    run(model, save=True)
    assert weights_hash(load(tmp_path / "run" / "weights")[0]) == weights_hash(model)


# ---- finished, and gone on with -----------------------------------------------------------------


def test_a_finished_run_is_replayed_and_not_measured(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    first, second = base(), base()
    done = run(first)
    before = contents(tmp_path / "run")
    with stopped_at(0):
        again = run(second)
    assert again[:4] == done[:4]
    assert again.tokens == 0 < done.tokens
    assert weights_hash(second) == weights_hash(first)
    assert contents(tmp_path / "run") == before


def test_more_steps_go_on_with_a_finished_run(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    at_once, longer = base(), base()
    run(at_once, output=tmp_path / "never", steps=2 * STEPS)
    run()
    run(longer, steps=2 * STEPS)
    assert weights_hash(longer) == weights_hash(at_once)
    with pytest.raises(RunError, match=r"steps: given 6, but the run in .* has taken 12"):
        run()
    with pytest.raises(RunError, match="its schedule is 'constant', and 'linear' was given"):
        run(steps=2 * STEPS, schedule="linear")
    run(output=tmp_path / "linear", schedule="linear")
    with pytest.raises(RunError, match="its steps is 6, and 12 was given"):
        run(output=tmp_path / "linear", schedule="linear", steps=2 * STEPS)


def test_a_falling_learning_rate_is_in_the_ledger(run: Callable[..., Run], tmp_path: Path) -> None:
    run(schedule="linear", lr=0.06)
    rates = [step.lr for step in ledger.read(tmp_path / "run" / "ledger.bin").steps]
    assert rates == pytest.approx([0.06, 0.05, 0.04, 0.03, 0.02, 0.01])


def test_saved_weights_are_those_of_the_model_and_follow_it(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    for steps in (STEPS, 2 * STEPS):
        model = base(torch.bfloat16)
        run(model, save=True, steps=steps)
        saved, tokenizer = load(tmp_path / "run" / "weights", dtype=torch.bfloat16)
        assert weights_hash(saved) == weights_hash(model)
        assert encode(tokenizer, ["the film"]).shape == (1, 2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(
        [*WRITTEN, "lock", "weights"]
    )


def test_saved_weights_are_not_left_behind_the_ledger(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    run(save=True)
    model = base()
    for left in ("weights.old", "weights.part"):  # by a killed session
        (tmp_path / "run" / left).mkdir()
    run(model, steps=2 * STEPS)
    assert sorted(path.name for path in (tmp_path / "run").glob("weights*")) == ["weights"]
    assert weights_hash(load(tmp_path / "run" / "weights")[0]) == weights_hash(model)


def test_numbers_of_numpy_are_numbers(run: Callable[..., Run], tmp_path: Path) -> None:
    import numpy as np

    names = ("steps", "batch_size", "evaluate_every", "dev", "length", "hash_every", "seed", "P")
    run(lr=np.float32(0.5), eps=np.float64(1e-3), **{name: np.int64(2) for name in names})
    run(lr=0.5, eps=1e-3, **dict.fromkeys(names, 2))
    assert files.read_config(tmp_path / "run")["steps"] == 2


# ---- what is refused, before any work, with nothing changed -------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 4}, "its seed is 3, and 4 was given"),
        ({"lr": 0.02}, "its lr is 0.01, and 0.02 was given"),
        ({"P": 2}, "its P is 1, and 2 was given"),
        ({"eps": 2e-3}, "its eps is 0.001, and 0.002 was given"),
        ({"directions": zo.Gaussian()}, "its directions is 'rademacher', and 'gaussian' was given"),
        ({"momentum": 0.5}, "its momentum is 0.0"),
        ({"weight_decay": 0.5}, "its weight_decay is 0.0"),
        ({"batch_size": 3}, "its batch_size is 2"),
        ({"length": 5}, "its length is None"),
        ({"evaluate_every": 3}, "its evaluate_every is 2"),
        ({"dev": 2}, "its dev is None"),
        ({"hash_every": 5}, "its hash_every is 4"),
        ({"task": toy_task()._replace(name="other")}, "its task is 'toy', and 'other' was given"),
        ({"task": toy_task()._replace(train=toy_task().dev)}, "its examples .SHA-256"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_another_run_s_folder_is_refused_by_the_name_of_the_option(
    run: Callable[..., Run],
    base: Callable[..., Any],
    tmp_path: Path,
    options: dict[str, Any],
    says: str,
) -> None:
    run()
    before, model = contents(tmp_path / "run"), base()
    with stopped_at(0), pytest.raises(RunError, match=says):
        run(model, **options)
    assert contents(tmp_path / "run") == before
    assert weights_hash(model) == weights_hash(base())


def test_another_base_model_is_refused(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    run()
    other = base()
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1
    with pytest.raises(RunError, match=r"its base model .SHA-256 of its weights"):
        run(other)
    with pytest.raises(RunError, match=r"its dtype is 'float32', and 'bfloat16' was given"):
        run(base(torch.bfloat16))
    with pytest.raises(LedgerError, match=r"began with weights of SHA-256.*load the base model"):
        replay(tmp_path / "run", other)
    with pytest.raises(LedgerError, match="dtype = float32, and this model's is bfloat16"):
        replay(tmp_path / "run", base(torch.bfloat16))
    part = base()
    next(part.parameters()).requires_grad_(False)
    with pytest.raises(LedgerError, match=r"of d = \d+, and this model's is \d+"):
        replay(tmp_path / "run", part)


def test_a_folder_with_other_files_is_refused_and_left_as_it_was(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.tex").write_text("nothing to do with it")
    with pytest.raises(RunError, match=r"holds thesis.tex and no ledger.bin.*choose a new"):
        run()
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written_is_refused(run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=r"cannot be written to \(.*choose another folder"):
            run(output=place)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_without_permission_it_is_refused(
    run: Callable[..., Run], tmp_path: Path, mode: int
) -> None:
    (tmp_path / "closed").mkdir(mode=mode)
    with pytest.raises(RunError, match=r"Permission denied.*change its permissions"):
        run(output=tmp_path / "closed" / "run")


def test_two_processes_do_not_write_to_one_folder(run: Callable[..., Run], tmp_path: Path) -> None:
    """The other one is real: it holds the lock until it is killed."""
    run()
    holder = (
        "import sys, time\nfrom pathlib import Path\nfrom zotutor.llm.runs.disk import Claim\n"
        "held = Claim(Path(sys.argv[1]))\nprint('held', flush=True)\ntime.sleep(600)\n"
    )
    command = [sys.executable, "-c", holder, os.fspath(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        before = contents(tmp_path / "run")
        with pytest.raises(RunError, match=r"another process is writing to .*wait for it to end"):
            run()
        assert contents(tmp_path / "run") == before
        other.kill()
    run()


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (lambda f: (f / "config.json").write_text("{"), RunError, "config.json: is damaged"),
        (lambda f: (f / "config.json").write_text('{"format": 2}'), RunError, "newer zotutor"),
        (lambda f: (f / "ledger.bin").unlink(), RunError, "has lost its ledger.bin; put it back"),
        (lambda f: (f / "ledger.bin").write_bytes(b"zoledger"), LedgerError, "within its header"),
        (
            lambda f: shutil.copy(f.parent / "other" / "ledger.bin", f / "ledger.bin"),
            LedgerError,
            "its ledger.bin is of another run",
        ),
    ],
    ids=["config cut", "config newer", "no ledger", "ledger cut", "another's ledger"],
)
def test_a_damaged_folder_is_refused(
    run: Callable[..., Run],
    tmp_path: Path,
    damage: Callable[[Path], Any],
    error: type[Exception],
    says: str,
) -> None:
    run(output=tmp_path / "other", seed=9)
    run()
    damage(tmp_path / "run")
    before = contents(tmp_path / "run")
    with stopped_at(0), pytest.raises(error, match=says):
        run()
    assert contents(tmp_path / "run") == before


def test_metrics_that_are_lost_or_damaged_are_made_anew(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    run()
    whole = contents(tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    lines = whole["metrics.jsonl"].splitlines(keepends=True)
    damaged = [b'{"step": 0, "accuracy": 0.5}\n', b"[1]\n", b"\xff\n", *lines[3:]]
    damaged.append(b'{"step": 6, "accuracy": "all", "low": 0, "high": 1, "examples": 6}\n')
    path.write_bytes(b"".join(damaged))
    run()
    assert contents(tmp_path / "run") == whole


def test_first_order_has_no_ledger(run: Callable[..., Run], tmp_path: Path) -> None:
    for method in ("sgd", "adamw"):
        with pytest.raises(ValueError, match="do not consist of a few numbers"):
            run(method=method)
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_with_a_call_is_said_before_any_work(
    small: tuple[Any, Any], base: Callable[..., Any], run: Callable[..., Run], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"save: given without output"):
        finetune(base(), small[1], toy_task(), steps=1, lr=0.1, save=True)
    with pytest.raises(ValueError, match=r"momentum: given 0.5 with adamw"):
        finetune(base(), small[1], toy_task(), steps=1, lr=0.1, method="adamw", momentum=0.5)
    long = toy_task().train[0]._replace(text="film " * 40)
    for part in ("train", "dev"):
        short: dict[str, Any] = {part: (long,)}
        given = toy_task()._replace(**short)
        with pytest.raises(ValueError, match="a prompt has 40 tokens, and this model reads 32"):
            finetune(base(), small[1], given, steps=1, lr=0.1, progress=False)
    for train in ((), (long._replace(text=" "),)):
        with pytest.raises(ValueError, match="task: its train has no example or an empty prompt"):
            run(task=toy_task()._replace(train=train))
    with pytest.raises(ValueError, match=r"model: given in training mode.*call model.eval"):
        run(base().train())
    for label in (-1, 2):
        wrong = (toy_task().dev[0]._replace(label=label),)
        for part in ("train", "dev"):
            given = (
                toy_task()._replace(train=wrong)
                if part == "train"
                else toy_task()._replace(dev=wrong)
            )
            with pytest.raises(ValueError, match=f"task: given labels {label} to {label}, exp"):
                run(task=given)
    for name, value in (("schedule", "cosine"), ("lr", -1.0), ("dev", 0), ("hash_every", 0)):
        with pytest.raises(ValueError, match=f"{name}: given"):
            run(**{name: value})
    assert not (tmp_path / "run").exists()


# ---- replay -------------------------------------------------------------------------------------


def test_every_weight_on_the_way_can_be_had(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    run()
    hashes = {s.number: s.sha256.hex() for s in ledger.read(tmp_path / "run/ledger.bin").hashes}
    assert sorted(hashes) == [4, 6]
    for steps in range(STEPS + 1):
        model = base()
        found = replay(tmp_path / "run" / "ledger.bin", model, steps=steps)
        assert found == (steps, {6: 6, 5: 4, 4: 4}.get(steps, 0), weights_hash(model))
        assert hashes.get(steps, found.sha256) == found.sha256
    with pytest.raises(ValueError, match=r"steps: given 7, but .* holds 6"):
        replay(tmp_path / "run", base(), steps=7)
    with pytest.raises(FileNotFoundError):
        replay(tmp_path, base())


def rewritten(path: Path, change: Callable[[ledger.Record], ledger.Record]) -> None:
    """A ledger whose checksums are right though a record is not, as someone could forge it."""
    found = ledger.read(path)
    path.unlink()
    with ledger.Ledger.create(path, found.header) as book:
        for record in found.records:
            book.append(change(record))


def test_an_edited_coefficient_does_not_give_the_recorded_weights(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    run()
    path = tmp_path / "run" / "ledger.bin"

    def change(record: ledger.Record) -> ledger.Record:
        if isinstance(record, ledger.Step) and record.number == 5:
            return record._replace(coefficients=(record.coefficients[0] * 1.01,))
        return record

    rewritten(path, change)
    for again in (lambda: replay(path, base()), run):
        with pytest.raises(
            LedgerError, match=r"after 6 steps the weights have SHA-256 .* recorded"
        ):
            again()


def test_a_record_of_another_seed_is_refused(
    run: Callable[..., Run], base: Callable[..., Any], tmp_path: Path
) -> None:
    run()
    path = tmp_path / "run" / "ledger.bin"
    rewritten(path, lambda r: r._replace(seed=8) if isinstance(r, ledger.Step) else r)
    with pytest.raises(LedgerError, match="step 0 is of seed 8, expected 3"):
        replay(path, base())


def test_the_hash_of_weights_sees_every_bit_shape_and_dtype(base: Callable[..., Any]) -> None:
    def flipped(bit: int) -> str:
        model = base()
        last = list(model.parameters())[-1].detach().view(-1).view(torch.int32)
        last[-1] ^= 1 << bit
        return weights_hash(model)

    found = {flipped(bit) for bit in range(31)} | {weights_hash(base())}
    assert len(found) == 32
    reshaped = (torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 2, bias=False))
    for model in reshaped:
        torch.nn.init.ones_(model.weight)
    assert weights_hash(reshaped[0]) != weights_hash(reshaped[1])
    assert weights_hash(reshaped[0]) != weights_hash(reshaped[0].bfloat16())
    odd = torch.nn.Linear(3, 2, bias=False)
    odd.weight = torch.nn.Parameter(torch.arange(6.0).view(3, 2).t())  # not contiguous
    even = torch.nn.Linear(3, 2, bias=False)
    even.weight = torch.nn.Parameter(odd.weight.detach().contiguous())
    assert weights_hash(odd) == weights_hash(even)


@pytest.mark.parametrize(
    "directions",
    [
        zo.Rademacher(),
        zo.Gaussian(),
        zo.Uniform(),
        zo.Sphere(),
        zo.Sparse(0.123),
        zo.LowRank(4),
    ],
    ids=repr,
)
def test_a_family_is_found_by_its_name(directions: Any) -> None:
    assert from_name(name_of(directions)) == directions


@pytest.mark.parametrize(
    "text", ["cauchy", "sparse", "sparse:x", "sparse:2", "lowrank:0", "sphere:3"]
)
def test_another_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"directions: given '{text}'"):
        from_name(text)


def test_a_family_of_ones_own_cannot_be_named(run: Callable[..., Run], tmp_path: Path) -> None:
    class Own(zo.Gaussian):
        pass

    with pytest.raises(TypeError, match="named in a file; use one of those, or run without output"):
        run(directions=Own())
    assert not (tmp_path / "run").exists()


# ---- batches ------------------------------------------------------------------------------------


def test_a_batch_is_what_the_tokenizer_makes_of_its_prompts(small: tuple[Any, Any]) -> None:
    tokenizer = small[1]
    examples = toy_task().train
    ids = [tokenizer(example.text)["input_ids"] for example in examples]
    batches = Batches(ids, [example.label for example in examples], size=5, seed=1)
    drawn = set()
    for step in range(20):
        tokens, labels = batches(step)
        texts = [next(e.text for e in examples if e.label == label) for label in labels.tolist()]
        assert torch.equal(tokens, encode(tokenizer, texts))
        assert torch.equal(tokens, batches(step)[0])
        drawn.add(tuple(labels.tolist()))
    assert len(drawn) > 5


# ---- what a run says of itself ------------------------------------------------------------------


def test_metrics_and_config_are_what_happened(run: Callable[..., Run], tmp_path: Path) -> None:
    found = run()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [e["loss"] for e in entries if "loss" in e] == found.losses
    assert [e["step"] for e in entries] == [0, 0, 1, 2, 2, 3, 4, 4, 5, 6]
    assert [e["accuracy"] for e in entries if "accuracy" in e] == [
        a.value for _, a in found.evaluations
    ]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["steps"], config["lr"], config["task"]) == (STEPS, 0.01, "toy")
    size = (tmp_path / "run" / "ledger.bin").stat().st_size
    header = struct.unpack_from("<I", (tmp_path / "run" / "ledger.bin").read_bytes(), 12)[0] + 24
    assert size == header + 8 * 48  # six steps and two hashes


def test_a_summary_of_a_folder_and_of_a_ledger(run: Callable[..., Run], tmp_path: Path) -> None:
    with stopped_at(4), pytest.raises(KeyboardInterrupt):
        run()
    found = files.summary(tmp_path / "run")
    assert (found["steps"], found["steps_taken"], found["finished"]) == (6, 4, False)
    assert list(found["accuracies"]) == [0, 2, 4]
    alone = files.summary(tmp_path / "run" / "ledger.bin")
    assert (alone["steps_taken"], alone["hashed_at"], alone["seed"]) == (4, 4, 3)
    assert "finished" not in alone
    (tmp_path / "sent").mkdir()
    shutil.copy(tmp_path / "run" / "ledger.bin", tmp_path / "sent")
    assert files.summary(tmp_path / "sent") == alone


def test_a_run_is_drawn(run: Callable[..., Run]) -> None:
    from matplotlib import pyplot

    figure = run().plot()
    assert len(figure.axes) == 2
    pyplot.close(figure)


def test_without_matplotlib_there_is_no_plot(
    run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run()
    assert sorted(contents(tmp_path / "run")) == ["config.json", "ledger.bin", "metrics.jsonl"]


def test_the_bar_of_a_notebook_is_not_on_standard_error(
    small: tuple[Any, Any],
    base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A notebook's standard error fails the build of the book."""

    class OutStream:
        write, flush = sys.stdout.write, sys.stdout.flush

    def go() -> tuple[str, str]:
        capfd.readouterr()
        finetune(base(), small[1], toy_task(), steps=2, lr=0.01)
        found = capfd.readouterr()
        return found.out, found.err

    out, err = go()
    assert "2/2" in err
    assert not out
    monkeypatch.setattr(OutStream, "__module__", "ipykernel.iostream")
    monkeypatch.setattr(sys, "stdout", OutStream())
    out, err = go()
    assert "2/2" in out
    assert not err
