"""One stage that takes several items at a time and crashes with one that says so: `{"crash": true}`. Imports torch no earlier
than the pipeline does."""

from __future__ import annotations

import ctypes
import json
import time

from multigpu_inference import ReplicaSet


class Echo:
    max_batch_size = 8

    def __init__(self, device):
        self.device = device

    def __call__(self, items):
        time.sleep(0.05)
        if any("crash" in item for item in items):
            ctypes.string_at(0)
        return [{**item, "shared_by": len(items)} for item in items]


def model_fn(model_dir, context):
    return ReplicaSet.load(lambda devices: [Echo(device) for device in devices], 1, devices=context.devices)


def input_fn(body, content_type):
    return json.loads(body)


def predict_fn(data, model):
    return model(data)


def output_fn(prediction, accept):
    return json.dumps(prediction)
