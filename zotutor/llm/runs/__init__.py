"""What writes a run down and reads it again; only fine-tuning and the command use it.

In reading order: ``disk`` (files that are whole or not there), ``ledger`` (a run as a list of
numbers), ``weights`` (their hash, and the folder they are saved to), ``replay`` (weights from a
ledger), ``files`` and ``folder`` (the output folder), ``interrupts``, ``ranks`` (a run on several
processes).
"""
