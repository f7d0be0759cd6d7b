"""Three models that look at the same picture: a simulated accelerator for the heavy one, idle cores for the light ones.

Each sleeps: `matte` 40 ms on the device, `faces` 30 ms in a process of its own, `colours` 24 ms on a thread. One after another
they take 94 ms, at the same time 40. Imports no torch.
"""

import io
import json
import time

from PIL import Image, ImageStat

from multigpu_inference import Branch, Branches, ReplicaSet

SIZE = (64, 48)
MATTE_S, FACES_S, COLOURS_S = 0.040, 0.030, 0.024


def lasting(seconds, work):
    """A model that takes so long for a picture."""

    def call(items):
        until = time.monotonic() + seconds
        results = [work(item) for item in items]
        time.sleep(max(0.0, until - time.monotonic()))
        return results

    return call


def brightest(picture):
    """Stands for a matte."""
    return picture.getextrema()[1]


def darkest(picture):
    """Stands for faces."""
    return picture.getextrema()[0]


def mean(picture):
    """Stands for colours."""
    return ImageStat.Stat(picture).mean[0]


def load_faces():
    """In each process of the branch."""
    return lasting(FACES_S, darkest)


def load_branches(device="cpu"):
    """The branches by name, each new."""
    return {
        "matte": Branch(lasting(MATTE_S, brightest), device),
        "faces": Branch(load_faces, processes=1),
        "colours": Branch(lasting(COLOURS_S, mean)),
    }


def load_stages(devices):
    """The one stage of a replica."""
    return [Branches(load_branches(devices[0]))]


def model_fn(model_dir, context=None):
    """One replica on its device."""
    return ReplicaSet.load(load_stages, 1, devices=getattr(context, "devices", None))


def input_fn(body, content_type):
    """Decode a small JPEG."""
    return Image.open(io.BytesIO(body)).convert("L").resize(SIZE)


def predict_fn(data, model):
    """All three, as a dict."""
    return model(data)


def output_fn(prediction, accept):
    """The dict as JSON."""
    return json.dumps(prediction)
