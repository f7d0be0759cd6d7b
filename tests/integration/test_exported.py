"""The reference application served from exported networks, beside the same from its checkpoints."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo_model import WEIGHTS
from integration.endpoint import ROOT, Endpoint
from integration.kinds import once_is_enough

PHOTO = sorted((ROOT / "demo" / "photos").iterdir())[0]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def matte(endpoint: Endpoint) -> np.ndarray:
    answer = endpoint.invoke(PHOTO.read_bytes(), f"image/{PHOTO.suffix[1:]}", Accept="image/png")
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)), int)


@once_is_enough
@pytest.mark.parametrize("runtime", ["onnx", "aotinductor"])
def test_the_matte_is_the_same(new_endpoint: Callable[..., Endpoint], tmp_path: Path, runtime: str) -> None:
    endpoints = [new_endpoint(MULTIGPU_NUM_REPLICAS="1") for _ in range(2)]
    for endpoint in endpoints:
        shutil.copytree(WEIGHTS, endpoint.model_dir)
        shutil.copytree(ROOT / "code", endpoint.model_dir / "code", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "multigpu_inference", "export", str(endpoints[1].model_dir), "--runtime", runtime],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for path in endpoints[1].model_dir.glob("*.safetensors"):
        path.unlink()  # so that nothing else can serve
    wanted, given = (matte(endpoint.start().ready()) for endpoint in endpoints)
    assert np.mean(abs(wanted - given) <= 1) >= 0.99
