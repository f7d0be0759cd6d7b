"""A network of 64 MiB that hundreds of requests go through at the same time, on one copy of its weights.

Each holds what it has computed for a second, so that all that were sent at once are within the network together.
"""

import time

import torch

from multigpu_inference import ReplicaSet

WIDTH, LAYERS = 2048, 4  # float32: 16 MiB a layer
HELD_S = 1.0


class Network:
    """A stage; whatever it changes while it works belongs to one call."""

    max_batch_size = 1

    def __init__(self, device):
        """Random weights, the same in every process."""
        generator = torch.Generator().manual_seed(1)
        self.device = device
        self._layers = [torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH**0.5 for _ in range(LAYERS)]

    def __call__(self, items):
        """The first numbers' signs, by item."""
        activations = [items[0]]
        for layer in self._layers:
            activations.append(torch.relu(layer @ activations[-1]) + activations[-1])
        time.sleep(HELD_S)
        return [bytes((activations[-1][:10] > 1).to(torch.uint8).tolist())]


def model_fn(model_dir, context=None):
    """One replica on its device."""
    return ReplicaSet.load(lambda devices: [Network(devices[0])], 1, devices=getattr(context, "devices", None))


def input_fn(body, content_type):
    """The first of the bytes, as float [WIDTH]."""
    return torch.frombuffer(bytearray(body[:WIDTH]), dtype=torch.uint8).float() / 255


def predict_fn(data, model):
    """Through the network."""
    return model(data)


def output_fn(prediction, accept):
    """Ten bytes."""
    return prediction
