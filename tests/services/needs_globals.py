"""A script whose `input_fn` and `output_fn` read what `model_fn` has set: they cannot leave the replica worker."""

import json
import os

LABELS = None
SCALE = 1


def model_fn(model_dir):
    global LABELS, SCALE
    LABELS = ["small", "large"]
    SCALE = 10
    return lambda x: x * SCALE


def input_fn(body, content_type):
    return {"value": json.loads(body)["value"] * SCALE}


def predict_fn(data, model):
    return {"value": model(data["value"]), "pid": os.getpid()}


def output_fn(prediction, accept):
    label = LABELS[prediction["value"] > 1000]
    return json.dumps({"label": label, "value": prediction["value"], "pids": [prediction["pid"], os.getpid()]})
