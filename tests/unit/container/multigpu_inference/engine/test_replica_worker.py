from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from multigpu_inference.engine import replica_worker, worker
from multigpu_inference.errors import ModelError

PLAIN = """
def model_fn(model_dir): return str
def predict_fn(data, model): return model(data)
"""
STAGES = """
from multigpu_inference import ReplicaSet
class Stage:
    device, max_batch_size = "cpu", 1
    def __call__(self, items): return items
def model_fn(model_dir): return ReplicaSet([[Stage()]])
"""
BRANCHES = """
from multigpu_inference import Branch, Branches, ReplicaSet
def model_fn(model_dir):
    return ReplicaSet([[Branches({"a": Branch(list, threads=9), "b": Branch(list)})]])
"""


def load(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> worker.Work:
    """What a replica worker does first, with room for 8 requests."""
    code = folder / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(script)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(folder))
    monkeypatch.setenv("PYTHONPATH", "")  # each is changed by the import, and put back
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "inference", sys)
    return replica_worker.load(0, 1, ("cpu",), 8)


@pytest.mark.parametrize(("script", "concurrency"), [(PLAIN, 1), (STAGES, 8)])
def test_only_stages_are_called_from_many_threads(
    script: str, concurrency: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(script, tmp_path, monkeypatch).concurrency == concurrency


def test_streams_for_a_model_without_stages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_STREAMS_PER_STAGE", "4")
    with pytest.raises(ModelError, match=r"MULTIGPU_STREAMS_PER_STAGE=4: .* without stages"):
        load(PLAIN, tmp_path, monkeypatch)


def test_a_branch_with_more_threads_than_there_are_requests_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    load(BRANCHES, tmp_path, monkeypatch)
    there, wide = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert (there["event"], there["at_a_time"]) == ("branches", {"a": 9, "b": 1})
    assert (wide["event"], wide["branch"]) == ("branch_is_too_wide", "a")
    assert wide["message"].startswith("it works on 9 batches at a time, and a replica has 8 requests at most")
