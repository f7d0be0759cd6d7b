"""Three models that look at the same picture at the same time: one on the replica's device, two on the CPU beside it."""

import json
import os
import threading
from functools import partial

import torch

from multigpu_inference import Branch, Branches, ReplicaSet


def load_score(seed):
    """The heavy one."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3)).eval()
    return lambda pictures: [float(network(picture[None]).mean()) for picture in pictures]


def load_edges(threshold):
    """Runs in processes of its own."""

    def edges(pictures):
        if any(picture.amax() > 1e6 for picture in pictures):
            os._exit(1)  # a library that does not survive every picture
        return [(int((picture.diff() > threshold).sum()), os.getpid()) for picture in pictures]

    return edges


def colours(pictures):
    """Runs on threads of the replica worker."""
    return [[round(float(value), 6) for value in picture.mean(dim=(1, 2))] for picture in pictures]


def load_stages(devices):
    return [
        Branches(
            {
                "score": Branch(load_score(1), devices[0]),
                "edges": Branch(partial(load_edges, 0.1), processes=2),
                "colours": Branch(colours, threads=2),
            }
        )
    ]


def model_fn(model_dir, context=None):
    return ReplicaSet.load(load_stages, 1, devices=getattr(context, "devices", None))


def input_fn(body, content_type):
    return torch.tensor(json.loads(body), dtype=torch.float32)


def predict_fn(data, model):
    seen = model(data)
    count, pid = seen["edges"]
    return {**seen, "edges": count, "pids": [os.getpid(), pid], "threads": threading.active_count()}


def output_fn(prediction, accept):
    return json.dumps(prediction)
