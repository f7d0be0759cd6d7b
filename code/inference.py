"""Background removal on every GPU of the machine: the whole idea in one file.

A photo goes through U²-Net, which draws a trimap, and a matting network, which makes it a fine alpha. This file is
written as for one GPU; each function does what its name promises wherever it is called:

| function     | in the container runs in                  | served by                  | called elsewhere          |
|--------------|-------------------------------------------|----------------------------|---------------------------|
| `model_fn`   | each replica worker, once, on its devices | `engine/replica_worker.py` | one replica for each GPU  |
| `input_fn`   | a worker of the process pool              | `engine/process_pool.py`   | a process pool of its own |
| `predict_fn` | the next replica worker in turn           | `engine/replica.py`        | the next replica in turn  |
|              | its stages, each on its device and stream | `engine/pipeline.py`       | the same                  |
| `output_fn`  | a worker of the process pool              | `engine/process_pool.py`   | right here                |

To serve your own models, keep the four functions and replace what they call. A stage is any callable with a `device`
and a `max_batch_size` that turns a list of items into a list of as many, and `accelerate` prepares its network as the
settings say. A script without stages works as well: the four functions as SageMaker knows them, one model on one GPU.
"""

from __future__ import annotations

import io
import os
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor

from matting.images import encode, read_request
from matting.pipeline import Matte, load_pipeline_stages
from multigpu_inference import LocalPool, ReplicaSet

STAGES = 2  # devices of a replica: one for U²-Net, one for matting
DEFAULT_ACCEPT = "image/png"  # for a client that accepts anything

_pool = LocalPool()


def model_fn(model_dir: str, context: Any = None) -> ReplicaSet:
    """Load the two networks: onto this replica's devices, or as often as there are GPUs where no devices are given."""
    max_pixels, max_batch_size = _setting("MULTIGPU_MATTING_MAX_PIXELS"), _setting("MULTIGPU_MAX_BATCH_SIZE")
    load = partial(load_pipeline_stages, model_dir, max_pixels=max_pixels, max_batch_size=max_batch_size)
    return ReplicaSet.load(load, STAGES, devices=getattr(context, "devices", None))


def input_fn(body: bytes | str, content_type: str) -> Tensor:
    """Decode the photo in a process of its own; uint8 [H, W, 3] on the CPU."""
    return _pool.run(read_request, body.encode() if isinstance(body, str) else bytes(body), content_type)


def predict_fn(data: Tensor, model: ReplicaSet) -> Matte:
    """Take the photo through the next replica's stages; alpha and foreground, uint8, on the last stage's device."""
    matte: Matte = model(data)
    return matte


def output_fn(prediction: Matte, accept: str) -> tuple[bytes, str]:
    """Encode what the client accepts: PNG of the alpha, PNG cut-out, JSON or npy; the bytes and their type."""
    return encode(prediction, accept)


def _setting(name: str) -> int | None:
    value = os.environ.get(name)
    return int(value) if value else None


def sample_input() -> tuple[bytes, str]:
    """A small photo, with which every replica is warmed before the first request."""
    photo = io.BytesIO()
    Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(photo, "JPEG")
    return photo.getvalue(), "image/jpeg"
