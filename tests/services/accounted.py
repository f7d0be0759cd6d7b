"""Answers with what proves that its own request was answered: the digest of its body. Some milliseconds in each place.

JSON goes through the fetch process, anything else does not.
"""

import hashlib
import json
import time

FETCH_TYPES = ("application/json",)
DEFAULT_ACCEPT = "application/json"


def sample_input():
    return b"sample", "application/octet-stream"


def model_fn(model_dir):
    return None


def fetch_fn(body, content_type):
    time.sleep(0.01)
    return {"text": body if isinstance(body, str) else bytes(body).decode()}


def input_fn(body, content_type):
    time.sleep(0.005)
    return body["text"].encode() if isinstance(body, dict) else bytes(body)


def predict_fn(data, model):
    time.sleep(0.02)
    return hashlib.sha256(data).hexdigest()


def output_fn(prediction, accept):
    time.sleep(0.005)
    return json.dumps({"sha256": prediction})
