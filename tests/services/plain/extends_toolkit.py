"""Extends the PyTorch toolkit's handler: one more content type, the rest as it is."""

import io

import numpy as np
import torch
from PIL import Image
from sagemaker_pytorch_serving_container.default_pytorch_inference_handler import DefaultPytorchInferenceHandler

handler = DefaultPytorchInferenceHandler()


def model_fn(model_dir):
    return torch.nn.AdaptiveAvgPool2d(1)


def input_fn(body, content_type):
    if content_type.startswith("image/"):
        picture = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), np.float32)
        return torch.from_numpy(picture).permute(2, 0, 1)[None]
    return handler.default_input_fn(body, content_type)


def output_fn(prediction, accept):
    return handler.default_output_fn(prediction.flatten(), accept)
