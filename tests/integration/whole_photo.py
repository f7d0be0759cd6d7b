"""The reference application in a container, with networks that take every pixel for foreground and cost nothing.

Its cut-out is the photo itself, as it was decoded: what comes back shows whether it was read rightly.
"""

from __future__ import annotations

from pathlib import Path

from integration.endpoint import ROOT, Endpoint
from multigpu_inference.config import HTTP

_NETWORKS = """

import torch
from matting.pipeline import MattingStage, TrimapStage


class Foreground(torch.nn.Module):
    out_channels = 3

    def forward(self, image):
        scores = torch.zeros_like(image)
        scores[:, 2] = 1
        return (scores,)


class Nothing(torch.nn.Module):
    def forward(self, image, known):
        return torch.zeros(len(image), 7, *image.shape[2:])


def model_fn(model_dir, context=None):
    def load(devices):
        return [TrimapStage(Foreground(), torch.device(devices[0])), MattingStage(Nothing(), torch.device(devices[-1]), 4096)]

    return ReplicaSet.load(load, STAGES, devices=getattr(context, "devices", None))
"""


def whole_photo_endpoint(folder: Path, kind: str = HTTP, **environment: str) -> Endpoint:
    """Such a container, not started yet; `environment` comes on top of the tests' own."""
    server = Endpoint(folder, MULTIGPU_FRONT_END=kind, MULTIGPU_MATTING_MAX_PIXELS="4096", **environment)
    server.with_source((ROOT / "code" / "inference.py").read_text() + _NETWORKS)
    (server.model_dir / "code" / "matting").symlink_to(ROOT / "code" / "matting")
    return server
