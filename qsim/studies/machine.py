"""The environment of a run: memory, processor, versions; and the file that says it all, `provenance.json`."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qsim

if TYPE_CHECKING:
    from qsim.studies.run import Finished
    from qsim.studies.study import Study

__all__ = ["Memory", "memory", "provenance"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Hold the bytes of memory that this process might use: in all, and free."""

    total: float
    free: float


def memory() -> Memory:
    """Return the memory of the machine, or of the container that holds this process; infinite where nobody tells."""
    found = Memory(float("inf"), float("inf"))
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        total, free = (1024.0 * int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        found = Memory(total, free)
        limit = float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))  # "max" where there is none
        used = float(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError, KeyError):
        return found
    return Memory(min(found.total, limit), min(found.free, limit - used))


def provenance(study: Study, finished: Finished, command: str, seconds: float) -> dict[str, Any]:
    """Return where a result came from: the command, the machine, versions, seeds, data, and where the time went.

    `seconds` is the time since the command began. The share outside the cells is 1 - (seconds in cells) / (workers x seconds).
    """
    spent = finished.seconds / (finished.workers * seconds)
    return {
        "command": command,
        "finished": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "study": study.name,
        "machine": {
            "processor": _processor(), "architecture": platform.machine(), "cores": os.cpu_count(),
            "system": platform.system(), "memory_bytes": memory().total,
        },
        "versions": {"qsim": qsim.__version__, **finished.source.libraries},
        "source": {"digest": finished.source.digest, "modules": dict(sorted(finished.source.modules.items()))},
        "data": dict(sorted(finished.data.items())),
        "seeds": dict(_seeds(study.tables)),
        "executor": {"name": finished.executor, "workers": finished.workers, "cell_memory_bytes": finished.memory},
        "cells": dict(finished.counts),
        "seconds": {
            "wall": round(seconds, 3), "in_cells": round(finished.seconds, 3),
            "outside_cells_share": round(1 - spent, 4) if finished.counts["computed"] else None,
        },
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _seeds(tables: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield every key called `seed` in the tables of a study, with its path."""
    items = tables.items() if isinstance(tables, Mapping) else enumerate(tables) if isinstance(tables, list) else ()
    for key, value in items:
        if key == "seed":
            yield f"{path}{key}", value
        yield from _seeds(value, f"{path}{key}.")
