"""A script that carries something from `input_fn` to `predict_fn` in a global, which is right in one process alone."""

import json

LAST = None


def model_fn(model_dir):
    return "model"


def input_fn(body, content_type):
    global LAST
    LAST = json.loads(body)["who"]
    return json.loads(body)


def predict_fn(data, model):
    return {"asked_by": data["who"], "answer_for": LAST}


def output_fn(prediction, accept):
    return json.dumps(prediction)
