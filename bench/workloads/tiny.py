"""A small convolutional network, about 10 ms on one thread, between a photo's decoding and a picture's encoding.

Decoding and encoding cost more than the model, as they do in many services that people run.
"""

import io

import torch
from PIL import Image

SIDE = 112  # pixels of the network's input


def model_fn(model_dir):
    """Random weights, the same in every process."""
    torch.manual_seed(1)
    layers = []
    for inputs, outputs in ((3, 24), (24, 24), (24, 24), (24, 24), (24, 1)):
        layers += [torch.nn.Conv2d(inputs, outputs, 3, padding=1), torch.nn.ReLU()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.nn.Sequential(*layers[:-1]).eval().to(device)


def input_fn(body, content_type):
    """A JPEG of about a megapixel, as uint8 [3, SIDE, SIDE]."""
    picture = Image.open(io.BytesIO(body)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.reshape(SIDE, SIDE, 3).permute(2, 0, 1).contiguous()


def predict_fn(data, model):
    """A mask, uint8 [SIDE, SIDE]."""
    with torch.inference_mode():
        logits = model(data[None].to(next(model.parameters()).device).float() / 255)[0, 0]
        # The weights have learnt nothing: levelled, so that a mask has all values and a wrong answer shows.
        return (((logits - logits.mean()) / logits.std()).sigmoid() * 255).round().to(torch.uint8).cpu()


def output_fn(prediction, accept):
    """The mask at three times its side, as PNG."""
    mask = Image.fromarray(prediction.numpy()).resize((3 * SIDE, 3 * SIDE), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue(), "image/png"


def sample_input():
    """A small photo."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(out, "JPEG")
    return out.getvalue(), "image/jpeg"
