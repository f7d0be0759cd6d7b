"""Packs a workload as SageMaker would unpack it: `BASE/model` with the weights, `BASE/model/code/inference.py`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bench.bench_error import BenchError
from bench.workload import ROOT, Workload


def make_model_folder(workload: Workload, base_dir: Path) -> None:
    """Make `base_dir/model` anew."""
    model = base_dir / "model"
    shutil.rmtree(base_dir, ignore_errors=True)
    model.mkdir(parents=True)
    if workload.script is not None:
        (model / "code").mkdir()
        shutil.copy(workload.script, model / "code" / "inference.py")
        return
    shutil.copytree(ROOT / "code", model / "code", ignore=shutil.ignore_patterns("__pycache__", "requirements.txt"))
    # A process of its own: making weights needs torch, which the benchmark itself does without.
    made = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "make_weights.py"), str(model)], capture_output=True, text=True, cwd=ROOT
    )
    if made.returncode != 0:
        raise BenchError(f"the demo's weights could not be made: {made.stderr.strip().splitlines()[-1:] or 'no word why'}")
