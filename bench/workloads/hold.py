"""Holds every request back until it is told to let go, so that many are in flight at the same moment."""

import os
import time

LOOK_AGAIN_S = 0.02


def model_fn(model_dir):
    """The file that holds requests back while it is there."""
    return os.environ["HOLD_WHILE"]


def input_fn(body, content_type):
    """What crosses to the model is a number."""
    return len(body)


def predict_fn(data, model):
    """Wait for the file to go."""
    while os.path.exists(model):
        time.sleep(LOOK_AGAIN_S)
    return data


def output_fn(prediction, accept):
    """Ten bytes."""
    return f"{prediction:010d}".encode(), "application/octet-stream"


def sample_input():
    """A small body."""
    return bytes(1000), "application/octet-stream"
