"""Language models: load, prompt, and fine-tune with forward passes only.

Needs the extra ``llm``: pip install "zotutor[llm]".
"""

import sys

from .adapters import add_adapter, load_adapter
from .doctor import Report, diagnose
from .dynamics import Positions, step_fidelity
from .evaluation import evaluate
from .finetuning import Run, finetune
from .learning_rate import plan
from .lm import load
from .objectives import Generated
from .prompts import encode, word_ids
from .rows import Rows
from .runs import ledger
from .runs.disk import RunError, RunStoppedError
from .runs.ledger import LedgerError
from .runs.ranks import Ranks, RanksError
from .runs.replay import Replay, replay
from .runs.weights import weights_hash
from .tasks import Accuracy, Example, Task, task
from .trainer import ZerothOrderSteps

sys.modules[f"{__name__}.ledger"] = ledger  # its place in version 0.1, until 0.3

__all__ = [
    "Accuracy",
    "Example",
    "Generated",
    "LedgerError",
    "Positions",
    "Ranks",
    "RanksError",
    "Replay",
    "Report",
    "Rows",
    "Run",
    "RunError",
    "RunStoppedError",
    "Task",
    "ZerothOrderSteps",
    "add_adapter",
    "diagnose",
    "encode",
    "evaluate",
    "finetune",
    "ledger",
    "load",
    "load_adapter",
    "plan",
    "replay",
    "step_fidelity",
    "task",
    "weights_hash",
    "word_ids",
]
