"""Where and of what a figure was taken."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.workload import ROOT


def machine() -> dict[str, Any]:
    """Cores that may be used, and their model."""
    return {"cores": len(os.sched_getaffinity(0)), "cpu": _cpu_model(), "python": platform.python_version()}


def commit() -> str:
    """The checkout's commit, with `+` where files differ from it; "" outside a checkout."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        return f"{name}+" if _git("status", "--porcelain", "--untracked-files=no") else name
    except (OSError, subprocess.SubprocessError):
        return ""


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
