"""Three networks that look at the same picture: about 10, 6 and 2 ms on one thread, the second in a process of its own."""

import io
import json
from functools import partial

import torch
from PIL import Image

from multigpu_inference import Branch, Branches, ReplicaSet

SIDE = 112  # pixels of the networks' input


def load_network(seed, channels):
    """Random weights, the same in every process; gives a picture's mean score, which no order of additions changes visibly."""
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in ((3, channels), (channels, channels), (channels, channels), (channels, channels), (channels, 1)):
        layers += [torch.nn.Conv2d(inputs, outputs, 3, padding=1), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1]).eval()

    def call(items):
        with torch.inference_mode():
            return [round(float(network(item[None].float() / 255).mean()), 4) for item in items]

    return call


def load_branches(device="cpu"):
    """The branches by name, each new."""
    return {
        "matte": Branch(load_network(1, 24), device),
        "faces": Branch(partial(load_network, 2, 16), processes=1),
        "colours": Branch(load_network(3, 4)),
    }


def load_stages(devices):
    """The one stage of a replica."""
    return [Branches(load_branches(devices[0]))]


def model_fn(model_dir, context=None):
    """One replica on its device."""
    return ReplicaSet.load(load_stages, 1, devices=getattr(context, "devices", None))


def input_fn(body, content_type):
    """A small JPEG, as uint8 [3, SIDE, SIDE]."""
    picture = Image.open(io.BytesIO(body)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.reshape(SIDE, SIDE, 3).permute(2, 0, 1).contiguous()


def predict_fn(data, model):
    """All three, as a dict."""
    return model(data)


def output_fn(prediction, accept):
    """The dict as JSON."""
    return json.dumps(prediction)
