"""A model on a device that fails as GPUs do, as each request's JSON tells it, or as files in `DEVICE_FAULTS` do for a replica.

    work_s       takes so long on the device, by itself or in a batch
    memory       takes so much of the device's 4 units while it is worked on: a batch, or one item, that needs more runs out
    ran_out      a file: the first time nothing is left, whatever it takes; it is made then
    sticky       what is lost with it, every time: such as "device-side assert triggered"
    sticky_once  a file: the device is lost where it is not there yet; it is made then
    hand_over    whether it is lost while the item is handed to the stage

    slow-N       replica N takes so many times as long as the others, while the file has that number in it
    lost-N       replica N loses its device with each request, while the file is there

What is raised has torch's names and texts; no torch is imported, so that it starts quickly. `DEVICE_FAULTS_STAGES=1` makes a
model of one stage, with batches; else it is a plain function.
"""

import json
import os
import pathlib
import time

from multigpu_inference.engine.replica_set import ReplicaSet

FOLDER = pathlib.Path(os.environ["DEVICE_FAULTS"])
STAGED = os.environ.get("DEVICE_FAULTS_STAGES") == "1"
UNITS = 4


class AcceleratorError(RuntimeError):
    """As torch names it."""


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class Device:
    device = "cpu"
    max_batch_size = 8

    def __init__(self, replica):
        self.replica = replica

    def batch_key(self, item):
        if item.get("hand_over") and first_time(item["sticky_once"]):
            lose("an illegal memory access was encountered")
        return "all"

    def __call__(self, items):
        if pathlib.Path(FOLDER, f"lost-{self.replica}").exists():
            lose("uncorrectable ECC error encountered")
        for item in items:
            if "sticky" in item:
                lose(item["sticky"])
            if "sticky_once" in item and first_time(item["sticky_once"]):
                lose("device-side assert triggered")
        if sum(item.get("memory", 0) for item in items) > UNITS or any(first_time(item.get("ran_out")) for item in items):
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB.")
        time.sleep(max(item.get("work_s", 0) for item in items) * self.factor())
        return [{"replica": self.replica, "pid": os.getpid(), "batch": len(items)} for _ in items]

    def factor(self):
        try:
            return float(pathlib.Path(FOLDER, f"slow-{self.replica}").read_text())
        except FileNotFoundError:
            return 1.0


def lose(text):
    raise AcceleratorError(f"CUDA error: {text}\nCUDA kernel errors might be asynchronously reported at some other API call.")


def first_time(path):
    """Whether a file is not there yet; it is made then."""
    if path is None:
        return False
    try:
        pathlib.Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def model_fn(model_dir, context):
    device = Device(context.replica_id)
    return ReplicaSet([[device]]) if STAGED else device


def input_fn(body, content_type):
    return json.loads(body)


def predict_fn(data, model):
    return model(data) if STAGED else model([data])[0]


def output_fn(prediction, accept):
    return json.dumps(prediction)
