"""A script with `fetch_fn` and `store_fn` whose requests say what they are to do.

A request is JSON, a list of such, or a form: `value`, answered `repeat` times; `sleep` (seconds in fetch_fn); `size` (bytes
to fetch); `bad` (cannot be read); `die` (fetch_fn ends its process: always, or once where it names a file); `fail` (predict_fn
raises it; `die` ends its process); `store` (a text for store_fn; `fail` and `die` there).
"""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np

from multigpu_inference import Bulk, Fetched
from multigpu_inference.errors import BadRequest

FETCH_TYPES = ("application/json",)
DEFAULT_ACCEPT = "application/json"


def model_fn(model_dir):
    return "model"


def fetch_fn(body, content_type, context):
    asked = json.loads(body) if content_type == "application/json" else dict(context.form)
    return Bulk([_fetch(item) for item in asked]) if isinstance(asked, list) else _fetch(asked)


def _fetch(asked):
    if asked.get("bad"):
        return BadRequest(f"bad: {asked['bad']}")
    if "die" in asked:
        _die(asked["die"])
    time.sleep(float(asked.get("sleep", 0)))
    pixels = np.full(int(asked.get("size", 0)), 7, np.uint8)
    value = asked["value"] * asked["repeat"] if "repeat" in asked else asked.get("value")
    data = {"value": value, "pixels": pixels, "fail": asked.get("fail"), "fetch_pid": os.getpid()}
    return Fetched(data, store=asked.get("store"))


def _die(how):
    if how == "always" or not Path(how).exists():
        if how != "always":
            Path(how).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def input_fn(data, content_type):
    if isinstance(data, dict):
        return {**data, "sum": int(data["pixels"].sum(dtype=np.int64)), "input_pid": os.getpid()}
    return {"value": bytes(data).decode(), "sum": 0, "body_type": type(data).__name__}


def predict_fn(data, model):
    if data.get("fail") == "die":
        os.abort()
    if data.get("fail"):
        raise ValueError(data["fail"])
    return {name: value for name, value in data.items() if name != "pixels"}


def output_fn(prediction, accept):
    if prediction["value"] == "text":
        return "no JSON", "text/plain"
    return json.dumps(prediction | {"accept": accept})


def store_fn(body, content_type, store, context):
    if store == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if store == "fail":
        raise BadRequest("cannot be stored")
    kept = json.loads(body) | {"stored": store, "type": content_type, "store_pid": os.getpid(), "form": dict(context.form)}
    return json.dumps(kept), "application/json"
