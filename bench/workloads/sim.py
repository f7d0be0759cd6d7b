"""One model or two on simulated accelerators: 1, 2, 4 or 8 devices with plenty of cores, studied on a small machine.

A stage sleeps for `a + b·n` milliseconds for a batch of n and holds its device all that time. A device is a file that is
locked: held by one stage at a time, in whatever process, and free again when its holder dies. Preprocessing and
postprocessing sleep too and hold nothing. Imports no torch, so that dozens of processes fit and start quickly.

The environment says how many stages there are and how long everything takes: `SIM_STAGES`, `SIM_DEVICES`, `SIM_DEVICE_DIR`,
`SIM_MAX_BATCH_SIZE`, and in milliseconds `SIM_PREPROCESS_MS`, `SIM_STAGE_1_MS`, `SIM_STAGE_1_ITEM_MS`, `SIM_STAGE_2_MS`,
`SIM_STAGE_2_ITEM_MS`, `SIM_POSTPROCESS_MS`.
"""

import ctypes
import fcntl
import io
import os
import tempfile
import threading
import time
from contextlib import contextmanager

from PIL import Image, ImageOps

from multigpu_inference import ReplicaSet

STAGES = int(os.environ.get("SIM_STAGES", 2))
SIZE = (64, 48)
DEFAULT_ACCEPT = "image/png"

_PR_SET_TIMERSLACK = 29
_libc = ctypes.CDLL(None)
_thread = threading.local()


def setting(name, default):
    """A number from the environment."""
    return float(os.environ.get(f"SIM_{name}", default))


def sleep_until(deadline):
    """Sleep as a device computes: not 50 µs longer, which is what the kernel adds for a thread that asks for nothing."""
    if not getattr(_thread, "precise", False):
        _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        _thread.precise = True
    left = deadline - time.monotonic()
    if left > 0:
        time.sleep(left)


@contextmanager
def lasting(milliseconds):
    """Let a block take this long, whatever it computes meanwhile."""
    deadline = time.monotonic() + milliseconds / 1e3
    yield
    sleep_until(deadline)


class Device:
    """A simulated accelerator as one stage sees it: `with device:` holds it, and waits while another stage does.

    Whoever waits stands in the door: a holder that wants the device again at once finds the door taken, and comes second, as
    processes take turns on a GPU. A lock alone would go to whoever is running, which is its last holder.
    """

    def __init__(self, number, folder):
        """Open descriptors of its own: a lock belongs to the open file, so two stages of one process exclude each other."""
        path = os.path.join(folder, f"device-{number}")
        self._door, self._device = (
            os.open(f"{path}.{part}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for part in ("door", "lock")
        )

    def __enter__(self):
        """Take it."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._device, fcntl.LOCK_EX)
        fcntl.flock(self._door, fcntl.LOCK_UN)

    def __exit__(self, *_):
        """Leave it to the next."""
        fcntl.flock(self._device, fcntl.LOCK_UN)


class Stage:
    """One simulated model: does something cheap to each picture while it sleeps on its device."""

    def __init__(self, work, base_ms, item_ms, device):
        """Take the place of a model that is loaded onto `device`, such as `cpu:3`."""
        self.device = device
        self.max_batch_size = int(setting("MAX_BATCH_SIZE", 1))
        self._work, self._base_ms, self._item_ms = work, base_ms, item_ms
        number = int(device.partition(":")[2] or 0) % int(setting("DEVICES", 1))
        self._held = Device(number, os.environ.get("SIM_DEVICE_DIR") or tempfile.gettempdir())

    def room(self):
        """The device: a batch is formed when it is there, of all that has come until then."""
        return self._held

    def __call__(self, items):
        """Turn pictures into as many."""
        with lasting(self._base_ms + self._item_ms * len(items)):
            return [self._work(item) for item in items]


def load_stages(devices):
    """The stages of one replica: as many as it has devices."""
    stages = [(ImageOps.invert, "STAGE_1", 8), (ImageOps.mirror, "STAGE_2", 12)][: len(devices)]
    return [
        Stage(work, setting(f"{name}_MS", base_ms), setting(f"{name}_ITEM_MS", 0), device)
        for (work, name, base_ms), device in zip(stages, devices, strict=True)
    ]


def model_fn(model_dir, context=None):
    """One replica on its devices."""
    return ReplicaSet.load(load_stages, STAGES, devices=getattr(context, "devices", None))


def input_fn(body, content_type):
    """Decode a small JPEG."""
    with lasting(setting("PREPROCESS_MS", 9)):
        return Image.open(io.BytesIO(body)).convert("L").resize(SIZE)


def predict_fn(data, model):
    """Through all stages."""
    return model(data)


def output_fn(prediction, accept):
    """Encode a small PNG."""
    with lasting(setting("POSTPROCESS_MS", 11)):
        out = io.BytesIO()
        prediction.save(out, "PNG")
        return out.getvalue(), "image/png"


def sample_input():
    """A small picture."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize(SIZE).save(out, "JPEG")
    return out.getvalue(), "image/jpeg"
