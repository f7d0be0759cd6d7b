"""A script as people write it for one GPU: two models in a dict, tensors put on `DEVICE` in `input_fn`, a picture by URL, and
the picture itself travelling along to be used after the first model. Nothing in it knows of several GPUs.
"""

import io
import json
import os

import requests
import torch
from PIL import Image

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Coarse(torch.nn.Module):
    def forward(self, x):
        return (x.mean(dim=1, keepdim=True) > 0.5).float()


class Fine(torch.nn.Module):
    def forward(self, image, mask):
        return (image.mean(dim=1, keepdim=True) * 0.5 + mask * 0.5).clamp(0, 1)


def model_fn(model_dir):
    coarse, fine = Coarse(), Fine()
    assert os.path.isdir(model_dir)
    return {"coarse": coarse.to(DEVICE).eval(), "fine": fine.to(DEVICE).eval()}


def input_fn(request_body, request_content_type):
    if request_content_type != "application/json":
        raise ValueError("only JSON")
    request = json.loads(request_body)
    image = Image.open(io.BytesIO(requests.get(request["url"], timeout=5).content)).convert("RGB")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(image.height, image.width, 3)
    tensor = (pixels.permute(2, 0, 1)[None].float() / 255).to(DEVICE)
    return {"image": image, "tensor": tensor, "save_name": request["save_name"]}


def predict_fn(input_data, model):
    with torch.no_grad():
        mask = model["coarse"](input_data["tensor"])
        alpha = model["fine"](input_data["tensor"], mask)
    alpha = Image.fromarray((alpha[0, 0].cpu().numpy() * 255).astype("uint8"))
    cut_out = input_data["image"].copy()
    cut_out.putalpha(alpha)
    return {"cut_out": cut_out, "save_name": input_data["save_name"], "pid": os.getpid()}


def output_fn(prediction, accept):
    cut_out = prediction["cut_out"]
    return json.dumps({"saved": prediction["save_name"], "size": cut_out.size, "mode": cut_out.mode, "pid": prediction["pid"]})
