"""A run on several processes: the bits of one process, few numbers sent, and no rank left waiting.

What ranks compute together is tested with threads in place of processes; that processes can be
lost, with processes.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest
import torch
from small import save_model, toy_task
from torch import Tensor, nn

from zotutor.directions import Directions, LowRank
from zotutor.llm import Example, Ranks, RanksError, evaluate, finetune, load, replay
from zotutor.llm.finetuning import Run
from zotutor.llm.runs import ranks as ranks_module
from zotutor.llm.runs.ledger import read
from zotutor.llm.stepping import ZerothOrder
from zotutor.probe import NonFiniteLossError

posix = pytest.mark.skipif(os.name != "posix", reason="needs processes that can be forked")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "small", layers=1)


@pytest.fixture(scope="module")
def base(place: Path) -> tuple[nn.Module, Any]:
    return load(place)


# ---- threads in place of processes --------------------------------------------------------------


class Network:
    """What this package uses of ``torch.distributed``, between threads that take turns."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.turn = threading.Lock()
        self.met = threading.Barrier(count, timeout=30)
        self.slots: dict[int, Tensor] = {}
        self.sent: list[int] = []
        self.local = threading.local()

    def _together(self, mine: Tensor) -> list[Tensor]:
        self.slots[self.local.rank] = mine.clone()
        self.sent.append(mine.nbytes)
        self._wait()
        found = [self.slots[rank] for rank in range(self.count)]
        self._wait()
        return found

    def _wait(self) -> None:
        self.turn.release()
        try:
            self.met.wait()
        finally:
            self.turn.acquire()

    def all_gather(self, found: list[Tensor], mine: Tensor) -> None:
        for place, given in zip(found, self._together(mine), strict=True):
            place.copy_(given)  # of the same size, as in a real one

    def broadcast(self, given: Tensor, source: int) -> None:
        given.copy_(self._together(given)[source])

    def get_backend(self) -> str:
        return "gloo"

    def destroy_process_group(self) -> None:
        pass


def on_threads(
    monkeypatch: pytest.MonkeyPatch, count: int, work: Callable[[Ranks], Any], **options: Any
) -> tuple[list[Any], Network]:
    """What ``work`` returns or raises on each of ``count`` ranks."""
    network, results = Network(count), dict[int, Any]()
    monkeypatch.setattr(ranks_module, "dist", network)

    def run(rank: int) -> None:
        network.local.rank = rank
        with network.turn:
            try:
                with Ranks(rank, count, **options) as ranks:
                    results[rank] = work(ranks)
            except (ArithmeticError, ValueError, OSError, KeyboardInterrupt) as error:
                results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(count)], network


def tuned(base: tuple[nn.Module, Any], **options: Any) -> tuple[Run, nn.Module]:
    model = copy.deepcopy(base[0])
    given: dict[str, Any] = {"steps": 4, "lr": 1e-3, "P": 5, "batch_size": 5, "progress": False}
    return finetune(model, base[1], toy_task(), **given | {"hash_every": 2} | options), model


def shared(base: tuple[nn.Module, Any], ranks: Ranks, **options: Any) -> tuple[Run, nn.Module]:
    return tuned(base, ranks=ranks, **options)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("count", [2, 5])
def test_directions_shared_give_the_bits_of_one_process(
    count: int, base: tuple[nn.Module, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, model = tuned(base, output=tmp_path / "one", evaluate_every=3, momentum=0.5)
    results, network = on_threads(
        monkeypatch,
        count,
        lambda ranks: tuned(
            base, output=tmp_path / "many", evaluate_every=3, momentum=0.5, ranks=ranks
        ),
    )
    for run, other in results:
        assert same_weights(model, other)
        assert (run.losses, run.evaluations) == (alone.losses, alone.evaluations)
    for name in ("ledger.bin", "metrics.jsonl", "config.json"):
        one, many = ((tmp_path / folder / name).read_bytes() for folder in ("one", "many"))
        assert one == many, name
    # a hash (8 numbers) at most, or two numbers a direction, and one that all is well
    assert max(network.sent) <= 8 * max(1 + 8, 1 + 2 * -(-5 // count))


@pytest.mark.parametrize("split", ["directions", "batch"])
@pytest.mark.parametrize("directions", [None, LowRank(2)])
def test_shared_work_gives_one_process_up_to_rounding(
    split: ranks_module.Split,
    directions: Directions | None,
    base: tuple[nn.Module, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A float32 loss L is off by some 2^-24 L, so a projected gradient by that over eps."""
    options: dict[str, Any] = {"P": 3, "directions": directions, "eps": 1e-3, "steps": 1}
    tuned(base, output=tmp_path / "one", **options)
    results, _ = on_threads(
        monkeypatch,
        3,
        lambda ranks: tuned(base, output=tmp_path / "many", ranks=ranks, **options),
        split=split,
    )
    (one,), (many,) = (read(tmp_path / folder / "ledger.bin").steps for folder in ("one", "many"))
    assert many.loss == pytest.approx(one.loss, rel=4 * 2**-24)
    bound = 4 * 2**-24 * one.loss / 1e-3
    for g, expected in zip(many.coefficients, one.coefficients, strict=True):
        assert abs(g - expected) <= bound
        assert abs(expected) > 10 * bound
    assert all(same_weights(results[0][1], other) for _, other in results)


def test_one_perturbation_and_rows_that_do_not_divide(
    base: tuple[nn.Module, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses are weighted with rows: 7 on 3 ranks are 2, 2 and 3."""
    alone, _ = tuned(base, P=1, batch_size=7, steps=3)
    results, network = on_threads(
        monkeypatch,
        3,
        lambda ranks: tuned(base, P=1, batch_size=7, steps=3, ranks=ranks),
        split="batch",
    )
    assert results[2][0].losses == pytest.approx(alone.losses, rel=1e-6)
    assert 8 * 3 in network.sent
    assert all(same_weights(results[0][1], other) for _, other in results)


def test_a_run_is_taken_up_by_other_numbers_of_ranks(
    base: tuple[nn.Module, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, model = tuned(base, steps=7, evaluate_every=2, output=tmp_path / "whole")
    output = tmp_path / "parts"
    for steps, count in ((2, 3), (5, 1), (7, 2), (7, 4)):
        options: dict[str, Any] = {"steps": steps, "evaluate_every": 2, "output": output}
        work = partial(shared, base, **options)
        results, _ = on_threads(monkeypatch, count, work)
    for run, other in results:
        assert same_weights(model, other)
        assert run.losses == whole.losses
        assert run.tokens == 0
    ledger = read(output / "ledger.bin")
    assert ledger.steps == read(tmp_path / "whole" / "ledger.bin").steps


def test_evaluation_is_shared(base: tuple[nn.Module, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Example(f"the film is {'good ' * (k % 7)}.", k % 2) for k in range(23)]
    words = ("terrible", "great")
    expected = evaluate(*base, examples, words, batch_size=4)
    results, network = on_threads(
        monkeypatch, 4, lambda ranks: evaluate(*base, examples, words, batch_size=4, ranks=ranks)
    )
    assert results == [expected] * 4
    assert network.sent == [16] * 4


def test_a_loss_that_is_not_finite_on_one_rank_stops_all(
    base: tuple[nn.Module, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(ranks: Ranks) -> Any:
        model = copy.deepcopy(base[0])
        if ranks.rank == 1:
            seen = iter(range(100))

            def poisoned(module: nn.Module, given: Any, found: Any) -> None:
                if next(seen) > 14:  # the check takes four, the evaluation two, each step four
                    found.logits.mul_(float("nan"))

            model.register_forward_hook(poisoned)
        return tuned((model, base[1]), P=4, ranks=ranks, output=tmp_path / "run", steps=6)

    results, _ = on_threads(monkeypatch, 2, run)
    assert [type(error) for error in results] == [NonFiniteLossError] * 2
    assert "the loss is not finite on rank 1" in str(results[0])
    assert "the loss is nan" in str(results[1])
    assert {error.__notes__[0][:20] for error in results} == {"This was step 2 of 6"}
    assert len(read(tmp_path / "run" / "ledger.bin").steps) == 2


def test_another_error_on_one_rank_stops_all(
    base: tuple[nn.Module, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(ranks: Ranks) -> Any:
        if ranks.rank == 1:
            words: tuple[str, ...] = ("terrible", "great")
            long = [Example("the " * 60, 0)] * 9
            return evaluate(*base, long, words, batch_size=2, ranks=ranks)
        return evaluate(*base, [Example("the film", 0)], ("terrible", "great"), ranks=ranks)

    results, _ = on_threads(monkeypatch, 2, run)
    assert isinstance(results[0], RanksError)
    assert str(results[0]) == "an evaluation: rank 1 stopped, and says why"
    assert "a prompt has 60 tokens" in str(results[1])


def test_weights_that_differ_are_found(
    base: tuple[nn.Module, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = ZerothOrder.take
    odd: set[ZerothOrder] = set()

    def take(self: ZerothOrder, coefficients: Any, *, lr: float) -> None:
        taken(self, coefficients, lr=lr)
        if self.optimizer.steps_taken == 3 and self in odd:
            self.optimizer.param_groups[0]["params"][0].data.view(-1)[0] += 1

    monkeypatch.setattr(ZerothOrder, "take", take)
    check = Ranks.check

    def checked(self: Ranks, stepper: ZerothOrder, size: int) -> None:
        check(self, stepper, size)
        if self.rank in (1, 3):
            odd.add(stepper)

    monkeypatch.setattr(Ranks, "check", checked)

    def run(ranks: Ranks) -> Any:
        return tuned(base, ranks=ranks, output=tmp_path / "run")

    results, _ = on_threads(monkeypatch, 4, run)
    assert [type(error) for error in results] == [RanksError] * 4
    assert "after 4 steps the weights of ranks 1, 3 differ from those of rank 0" in str(results[2])
    ledger = read(tmp_path / "run" / "ledger.bin")
    assert [entry.number for entry in ledger.hashes] == [2], "the doubtful hash is not written"
    assert len(ledger.steps) == 4


@pytest.mark.parametrize("what", ["lr", "weights", "examples"])
def test_ranks_that_begin_differently_are_refused(
    what: str, base: tuple[nn.Module, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(ranks: Ranks) -> Any:
        model, task, lr = copy.deepcopy(base[0]), toy_task(), 1e-3
        if ranks.rank == 1:
            lr = 2e-3 if what == "lr" else lr
            task = task._replace(train=task.train[1:]) if what == "examples" else task
            if what == "weights":
                next(model.parameters()).data.view(-1)[0] += 1
        options: dict[str, Any] = {"steps": 2, "P": 2, "output": tmp_path / "run", "ranks": ranks}
        return finetune(model, base[1], task, lr=lr, **options, progress=False)

    results, _ = on_threads(monkeypatch, 2, run)
    for error in results:
        assert isinstance(error, ValueError)
        assert "rank 1 began with other options, data or base weights than rank 0" in str(error)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_refused_ends_all_ranks_and_is_let_go(
    base: tuple[nn.Module, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    results, _ = on_threads(monkeypatch, 2, lambda ranks: tuned(base, ranks=ranks, output=tmp_path))
    assert "holds letter.txt" in str(results[0])
    assert str(results[1]) == "the start: rank 0 stopped, and says why"

    class Stops(Ranks):
        def _from_first(self, *given: Any) -> Any:
            raise RanksError("lost")

    def begun(ranks: Ranks) -> Any:
        ranks.__class__ = Stops
        return tuned(base, ranks=ranks, output=tmp_path / "run")

    results, _ = on_threads(monkeypatch, 2, begun)
    assert [str(error) for error in results] == ["lost", "lost"]
    tuned(base, output=tmp_path / "run")  # its lock was given back


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"P": 1}, "split: 2 ranks cannot share the P = 1 directions of a step; split the batch"),
        ({"batch_size": 1}, "split: 2 ranks cannot share the 1 rows of a batch"),
        ({"method": "sgd"}, "method: its steps need whole gradients, which 2 ranks cannot share"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    options: dict[str, Any], message: str, base: tuple[nn.Module, Any]
) -> None:
    split: ranks_module.Split = "batch" if "batch_size" in options else "directions"
    with pytest.raises(ValueError, match=message):
        tuned(base, ranks=Ranks(0, 2, split=split), **options)


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ({}, {"split": "rows"}, "split: given 'rows', expected one of directions, batch"),
        ({}, {"timeout": 0.0}, "timeout: given 0, expected a number of seconds above 0"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, {}, "the environment has 2, 2, expected a number below"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, {}, "start with torchrun, which sets them"),
    ],
)
def test_joining_is_refused(
    environment: dict[str, str],
    options: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        Ranks.join(**options)


class Pretended(Network):
    """A network of two on which rank 0 hears itself twice."""

    def __init__(self) -> None:
        super().__init__(2)
        self.backend = ""

    def init_process_group(self, backend: str, timeout: Any) -> None:
        if timeout.total_seconds() < 1:
            raise RuntimeError("nobody came\nat all")
        self.backend = backend

    def is_nccl_available(self) -> bool:
        return True

    def get_backend(self) -> str:
        return self.backend

    def all_gather(self, found: list[Tensor], mine: Tensor) -> None:
        for place in found:
            place.copy_(mine)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    network = Pretended()
    monkeypatch.setattr(ranks_module, "dist", network)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    return network


def test_others_that_do_not_come_are_named(pretended: Pretended) -> None:
    with pytest.raises(RanksError, match=r"rank 0 of 2: the others did not come \(nobody came\)"):
        Ranks.join(timeout=0.5)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_others_and_a_second_does_not(
    number: signal.Signals, pretended: Pretended
) -> None:
    before = signal.getsignal(number)
    with Ranks.join() as ranks:
        assert ranks.total(lambda: 3) == 6
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            ranks.total(lambda: 3)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_each_process_of_a_machine_takes_its_own_gpu(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "1")
    ranks = Ranks.join(device="cuda")
    assert (ranks.device, pretended.backend, chosen) == ("cuda:3", "nccl", ["cuda:3"])
    assert Ranks.join(device="cuda:1").device == "cuda:1"
    assert pretended.backend == "gloo"


def test_numbers_that_do_not_come_say_how_the_run_goes_on(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(found: Any, mine: Any) -> None:
        raise RuntimeError("[/a/pair.cc:553] Connection closed by peer [::1]:9. This is\ntypical")

    ranks = Ranks.join(timeout=60)
    monkeypatch.setattr(pretended, "all_gather", lost)
    with pytest.raises(RanksError, match="the same command resumes the run") as caught:
        ranks.agreed_hash(nn.Linear(1, 1), 7)
    assert str(caught.value).startswith(
        "step 7: a rank was lost, or let the others wait for more than 60 s (Connection closed by "
        "peer [::1]:9);"
    )


# ---- processes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranked() -> Any:
    """The module that starts processes, loaded once in the process that they are forked from."""
    folder = os.fspath(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([folder, *sys.path]))
        patch.setenv("OMP_NUM_THREADS", "1")
        get_context("forkserver").set_forkserver_preload(["ranked"])
        ensure_running()
    import ranked

    return ranked


def command(model: Path, output: Path, *more: str) -> list[str]:
    text = "finetune --task reviews --steps 12 --lr 1e-3 -P 5 --hash-every 4 --seed 3 --dev 16 "
    text += "--length 24 --batch-size 4 --evaluate-every 6"
    return [*text.split(), "--model", str(model), "--output", str(output), *more]


@pytest.fixture(scope="module")
def alone(place: Path, ranked: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one process."""
    folder: Path = tmp_path_factory.mktemp("alone")
    (ended,) = ranked.start(folder / "log", 1, command(place, folder / "run"))
    assert ended.code == 0, ended.text
    assert ended.sent == {"all_gather": [], "broadcast": []}
    return folder / "run"


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("ledger.bin", "metrics.jsonl", "config.json", "plot.png"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@posix
@pytest.mark.parametrize("count", [2, 4])
def test_processes_write_what_one_process_writes_and_send_few_numbers(
    count: int, place: Path, alone: Path, ranked: Any, tmp_path: Path
) -> None:
    ended = ranked.start(tmp_path / "log", count, command(place, tmp_path / "run"))
    assert [e.code for e in ended] == [0] * count, ended
    assert_same_run(alone, tmp_path / "run")
    assert "12 steps" in ended[0].text
    assert [e.text for e in ended[1:]] == [""] * (count - 1)
    step, digest = 8 * (1 + 2 * -(-5 // count)), 8 * (1 + 8)
    for e in ended:
        assert e.sent["broadcast"] == [0]  # nothing to resume
        assert e.sent["all_gather"].count(step) == 12
        assert sum(e.sent["all_gather"]) == 12 * step + 4 * digest + 8 * 3 + 3 * 8 * 2


@posix
def test_a_killed_rank_ends_the_run_and_other_numbers_of_ranks_take_it_up(
    place: Path, alone: Path, ranked: Any, tmp_path: Path
) -> None:
    argv = command(place, tmp_path / "run")
    ended = ranked.start(tmp_path / "1", 4, argv, ranked.Fault("kill", 2, 5))
    assert [e.code for e in ended] == [3, 3, -signal.SIGKILL, 3], ended
    assert "zotutor: rank 0 of 4: step 5: a rank was lost" in ended[0].text
    assert "the same command resumes the run" in ended[3].text
    assert len(read(tmp_path / "run" / "ledger.bin").steps) == 5

    ended = ranked.start(tmp_path / "2", 2, argv, ranked.Fault("kill", 0, 9))
    assert [e.code for e in ended] == [-signal.SIGKILL, 3], ended
    assert ended[1].sent["broadcast"] == [8 * (5 * 7 + 5)]  # 5 steps and an evaluation
    assert len(read(tmp_path / "run" / "ledger.bin").steps) == 9

    ended = ranked.start(tmp_path / "3", 3, argv)
    assert [e.code for e in ended] == [0] * 3, ended
    assert_same_run(alone, tmp_path / "run")


@posix
@pytest.mark.slow
def test_a_rank_that_hangs_is_waited_for_no_longer_than_said(
    place: Path, ranked: Any, tmp_path: Path
) -> None:
    argv = command(place, tmp_path / "run", "--timeout", "10")
    ended = ranked.start(tmp_path / "log", 2, argv, ranked.Fault("hang", 1, 5))
    assert [e.code for e in ended] == [3, -signal.SIGKILL], ended
    assert "let the others wait for more than 10 s" in ended[0].text
    assert len(read(tmp_path / "run" / "ledger.bin").steps) == 5


@posix
@pytest.mark.parametrize(
    ("kind", "code", "steps", "says"),
    [
        ("interrupt", 130, 5, "interrupted; the same command resumes the run"),
        ("nan", 4, 5, "the loss is not finite on rank 1, which says more"),
        ("flip", 3, 8, "after 8 steps the weights of rank 1 differ from those of rank 0"),
    ],
)
def test_what_stops_one_rank_stops_all_at_the_same_step(
    kind: str, code: int, steps: int, says: str, place: Path, ranked: Any, tmp_path: Path
) -> None:
    argv = command(place, tmp_path / "run")
    ended = ranked.start(tmp_path / "log", 2, argv, ranked.Fault(kind, 1, 5))
    assert [e.code for e in ended] == [code, code], ended
    assert f"zotutor: rank 0 of 2: {says}" in ended[0].text
    assert len(read(tmp_path / "run" / "ledger.bin").steps) == steps


@posix
def test_rows_of_the_batch_are_shared_between_processes(
    place: Path, base: tuple[nn.Module, Any], ranked: Any, tmp_path: Path
) -> None:
    argv = [*command(place, tmp_path / "run", "--split", "batch"), "-P", "1"]
    ended = ranked.start(tmp_path / "log", 3, argv)
    assert [e.code for e in ended] == [0] * 3, ended
    ranked.start(tmp_path / "log", 1, [*command(place, tmp_path / "one"), "-P", "1"])
    losses = [[s.loss for s in read(tmp_path / f / "ledger.bin").steps] for f in ("run", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert replay(tmp_path / "run", copy.deepcopy(base[0])).checked == 12


@posix
@pytest.mark.slow
def test_torchrun_starts_the_processes(place: Path, alone: Path, tmp_path: Path) -> None:
    start = "-m torch.distributed.run --standalone --nproc-per-node 2 -m zotutor".split()
    argv = [sys.executable, *start, *command(place, tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("12 steps, accuracy") == 1
    assert_same_run(alone, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["steps"] == 12
