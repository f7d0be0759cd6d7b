"""Gives a body back, its bytes in reverse order; on the way they are arrays, so they travel as the tensors of a model do."""

from __future__ import annotations

import numpy as np


def sample_input():
    return bytes(range(256)), "application/octet-stream"


def model_fn(model_dir):
    return None


def input_fn(body, content_type):
    return {"pixels": np.frombuffer(body, np.uint8), "twice": np.frombuffer(bytes(body) * 2, np.uint8)}


def predict_fn(data, model):
    data["pixels"][:] = data["pixels"][::-1].copy()  # in place, as scripts may
    return data


def output_fn(prediction, accept):
    return prediction["pixels"].tobytes(), "application/octet-stream"
