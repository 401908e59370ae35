"""Language models: load, prompt, and fine-tune with forward passes only.

Needs the extra ``llm``: pip install "zotutor[llm]".
"""

from .dynamics import Positions, step_fidelity
from .files import RunError
from .finetune import Run, evaluate, finetune
from .ledger import LedgerError, RunStoppedError
from .lm import Rows, encode, load, word_ids
from .parallel import Ranks, RanksError
from .replay import Replay, replay, weights_hash
from .tasks import Accuracy, Example, Task, task

__all__ = [
    "Accuracy",
    "Example",
    "LedgerError",
    "Positions",
    "Ranks",
    "RanksError",
    "Replay",
    "Rows",
    "Run",
    "RunError",
    "RunStoppedError",
    "Task",
    "encode",
    "evaluate",
    "finetune",
    "load",
    "replay",
    "step_fidelity",
    "task",
    "weights_hash",
    "word_ids",
]
