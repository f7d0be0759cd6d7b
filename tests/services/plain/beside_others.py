"""Imports what lies beside it, in packages and in lib/, and reads files by paths from the model folder."""

import json
from pathlib import Path

from helpers.scale import scale  # a package beside this file
from labels import LABELS  # a module beside this file
from vendored import VERSION  # in code/lib

CONFIG = json.loads(Path("config.json").read_text())  # the working folder is the model folder


def model_fn(model_dir):
    assert Path(model_dir).resolve() == Path.cwd()
    return json.loads((Path(model_dir) / "config.json").read_text())["factor"]


def input_fn(body, content_type):
    return json.loads(body)


def predict_fn(data, model):
    return {"scaled": [scale(value, model) for value in data], "label": LABELS[CONFIG["label"]], "version": VERSION}


def output_fn(prediction, accept):
    return json.dumps(prediction)
