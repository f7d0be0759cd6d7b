"""Background removal on every GPU of the machine: the whole idea in one file.

A photo goes through U²-Net, which draws a trimap, and a matting network, which makes it a fine alpha. This file is
written as for one GPU; each function does what its name promises wherever it is called:

| function     | in the container runs in                  | served by                  | called elsewhere          |
|--------------|-------------------------------------------|----------------------------|---------------------------|
| `model_fn`   | each replica worker, once, on its devices | `engine/replica_worker.py` | one replica for each GPU  |
| `fetch_fn`   | a thread of a fetch process               | `engine/fetch_worker.py`   | `input_fn` does its work  |
| `input_fn`   | a worker of the process pool              | `engine/process_pool.py`   | a process pool of its own |
| `predict_fn` | the next replica worker in turn           | `engine/replica.py`        | the next replica in turn  |
|              | its stages, each on its device and stream | `engine/pipeline.py`       | the same                  |
| `output_fn`  | a worker of the process pool              | `engine/process_pool.py`   | right here                |
| `store_fn`   | a thread of a fetch process               | `engine/fetch_worker.py`   | `output_fn` does its work |

To serve your own models, keep the functions and replace what they call; `fetch_fn` and `store_fn` may be left out. A stage
is any callable with a `device` and a `max_batch_size` that turns a list of items into a list of as many, and `accelerate`
prepares its network as the settings say. A script without stages works as well: the four functions as SageMaker knows
them, one model on one GPU. Elsewhere a body is one photo: a list needs `fetch_fn`, and is answered with 400.
"""

from __future__ import annotations

import io
import os
from functools import partial
from typing import Any

from PIL import Image

from matting.accept import JSON
from matting.encode import answer
from matting.exported import export_networks as export_networks  # for `python -m multigpu_inference export`
from matting.fetch import fetch_body
from matting.photo import Photo, read_photo
from matting.pipeline import load_pipeline_stages
from matting.prediction import Prediction
from matting.save import Save
from matting.settings import Settings
from matting.store import store as store_answer
from multigpu_inference import Bulk, Fetched, LocalPool, ReplicaSet

STAGES = 2  # devices of a replica: one for U²-Net, one for matting
DEFAULT_ACCEPT = "*/*"  # a client that accepts anything gets what its options ask for
FETCH_TYPES = (JSON,)  # a picture's own bytes need no fetching

_pool = LocalPool()


def model_fn(model_dir: str, context: Any = None) -> ReplicaSet:
    """Load the two networks: onto this replica's devices, or as often as there are GPUs where no devices are given."""
    settings = Settings.from_env(os.environ)
    max_pixels, max_batch_size = settings.matting_max_pixels, settings.max_batch_size
    load = partial(load_pipeline_stages, model_dir, max_pixels=max_pixels, max_batch_size=max_batch_size)
    return ReplicaSet.load(load, STAGES, devices=getattr(context, "devices", None))


def fetch_fn(body: bytes | str, content_type: str, context: Any) -> Fetched | Bulk:
    """Fetch the photo that a JSON object or a form names, or each of a JSON list, within bounds of bytes and time."""
    settings = Settings.from_env(os.environ)
    accept = settings.accept_of(_header(context))
    return fetch_body(body, content_type, context.form, accept, settings, context.seconds_left)


def input_fn(body: Any, content_type: str, context: Any = None) -> Photo:
    """Decode the photo in a process of its own; uint8 [H, W, 3] on the CPU, with what is wanted of it."""
    settings = Settings.from_env(os.environ)
    # Without a context nobody knows yet what the client accepts.
    accept = None if context is None else settings.accept_of(_header(context))
    return _pool.run(read_photo, body, content_type, accept, settings)


def predict_fn(data: Photo, model: ReplicaSet) -> Prediction:
    """Take the photo through the next replica's stages; what its outputs need, uint8, on the last stage's device."""
    return Prediction.of(model(data.pixels), data)


def output_fn(prediction: Prediction, accept: str) -> tuple[bytes, str]:
    """Encode what the client accepts: PNG, WebP, JSON or npy of alpha, cut-out or trimap; the bytes and their type."""
    return answer(prediction, accept)


def store_fn(body: bytes, content_type: str, store: Save) -> tuple[bytes, str]:
    """Store the answer in S3 under the name that the client chose; the answer is then where it is, in JSON."""
    return store_answer(body, content_type, store)


def sample_input() -> tuple[bytes, str]:
    """A small photo, with which every replica is warmed before the first request."""
    photo = io.BytesIO()
    Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(photo, "JPEG")
    return photo.getvalue(), "image/jpeg"


def _header(context: Any) -> str | None:
    """A request's Accept header; the stock container's context has this function too."""
    header: str | None = context.get_request_header(0, "Accept")
    return header
