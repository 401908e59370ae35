"""Runs on disk and on several processes; only fine-tuning and the command use this package.

In reading order: ``disk`` (files written whole or not at all), ``ledger`` (a run as a list of
numbers), ``weights`` (their hash, and saving them), ``replay`` (weights from a ledger), ``files``
and ``folder`` (the output folder), ``interrupts``, ``ranks`` (a run on several processes).
"""
