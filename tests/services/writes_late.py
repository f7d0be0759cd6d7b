"""Answers with 300,000 times its body's second byte, which it writes after as many tenths of a second as the first one says."""

import time

import numpy as np


def model_fn(model_dir):
    return None


def input_fn(body, content_type):
    return np.frombuffer(body, np.uint8)


def predict_fn(data, model):
    time.sleep(data[0] / 10)
    return np.full(300_000, data[1], np.uint8)


def output_fn(prediction, accept):
    return prediction.tobytes(), "a/b"
