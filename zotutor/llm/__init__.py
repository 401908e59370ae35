"""Language models: load, prompt, and fine-tune with forward passes only.

Needs the extra ``llm``: pip install "zotutor[llm]".
"""

from .dynamics import Positions, step_fidelity
from .files import RunError
from .finetune import Run, evaluate, finetune
from .ledger import LedgerError, RunStoppedError
from .lm import load
from .parallel import Ranks, RanksError
from .prompts import encode, word_ids
from .replay import Replay, replay, weights_hash
from .rows import Rows
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
