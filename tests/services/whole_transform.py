"""A script that answers with `transform_fn` alone."""

import os


def model_fn(model_dir):
    return "model"


def transform_fn(model, body, content_type, accept):
    return f"{model} {len(body)} {content_type} {accept} {os.getpid()}", "text/plain"
