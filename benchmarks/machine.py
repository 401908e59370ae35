"""The machine in general words, and how its allocator treats freed memory."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Options of glibc's malloc, by number."""


def processor() -> str:
    """The processor's name without trademarks, such as "AMD EPYC"; "" if nothing says it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    name = found[1] if found else ""
    return " ".join(re.sub(r"\(\w+\)|@.*|\b(CPU|Processor)\b", "", name).split())


def machine_type(device: str) -> str:
    """What determines ratios of times: processor, instruction set, threads, and a GPU if used.

    Records of two runs are compared only if this is the same. It names no host.
    """
    parts = [platform.machine(), processor(), torch.backends.cpu.get_cpu_capability()]
    count = torch.get_num_threads()
    parts.append(f"{count} thread{'s' if count > 1 else ''}")
    if device == "cuda":
        parts.append(torch.cuda.get_device_name())
    return ", ".join(part for part in parts if part)


def folder_name(machine: str) -> str:
    """A machine type as the name of a folder: lower case, dashes.

    >>> folder_name("x86_64, AMD EPYC, AVX512, 2 threads")
    'x86-64-amd-epyc-avx512-2-threads'
    """
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def _set_malloc(options: dict[int, int]) -> None:
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for option, value in options.items():
                mallopt(option, value)


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees (Linux), for timings.

    Otherwise new pages, depending on their layout, change any time by up to a tenth.
    """
    _set_malloc({TRIM_THRESHOLD: (1 << 31) - 1, MMAP_MAX: 0})


def return_freed_memory() -> None:
    """Let this process return freed memory at once (Linux), so that a peak counts tensors only."""
    _set_malloc({MMAP_THRESHOLD: 1 << 16})


def resident_bytes(peak: bool = False) -> int:
    """This process's resident memory, or its highest value since :func:`forget_peak` (Linux)."""
    name = "VmHWM:" if peak else "VmRSS:"
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(name)[1].split()[0]) << 10


def forget_peak() -> None:
    """Begin a new measurement of the peak."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def has_memory_counters() -> bool:
    """Whether this system counts a process's peak memory: Linux."""
    return Path("/proc/self/clear_refs").exists()
