"""Which errors of a device only a new process heals, as torch and CUDA raise them; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

HEAD = """
import torch
from multigpu_inference import Pipeline
from multigpu_inference.engine.device_error import device_error_kind

def tell(work):
    try:
        work()
        torch.cuda.synchronize()
    except BaseException as error:
        print(device_error_kind(error).name, flush=True)
    else:
        print("WELL", flush=True)

def compute():
    torch.ones(2, device="cuda").sum().item()

def fail_an_assert():
    torch.zeros(4, device="cuda")[torch.tensor([9], device="cuda")].sum().item()
"""


def told_by(script: str) -> list[str]:
    """What a script of the above tells; it may not end in order."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", HEAD + script], env=environ, capture_output=True, text=True, timeout=120)
    return done.stdout.split()


def test_a_device_side_assert_is_sticky_and_so_is_what_comes_after() -> None:
    assert told_by("tell(compute); tell(fail_an_assert); tell(compute)") == ["WELL", "STICKY", "STICKY"]


def test_so_is_what_its_libraries_and_copies_raise_after_it() -> None:
    script = """
tell(fail_an_assert)
image, matrix = torch.ones(1, 3, 8, 8), torch.ones(64, 64)
tell(lambda: (matrix.cuda() @ matrix.cuda()).sum().item())
tell(lambda: torch.nn.functional.conv2d(image.cuda(), torch.ones(4, 3, 3, 3).cuda()).sum().item())
tell(lambda: torch.cuda.Event(blocking=True).record())
tell(lambda: image.pin_memory().to("cuda", non_blocking=True))
tell(torch.cuda.empty_cache)
"""
    told = told_by(script)
    assert told[0] == "STICKY"
    assert set(told) <= {"STICKY", "WELL"}  # a call that asks nothing of the device may go through
    assert told[1:3] == ["STICKY"] * 2


def test_an_illegal_access_is_sticky() -> None:
    script = """
class Beyond:
    \"\"\"Memory of the device that begins in an allocation and ends far behind it.\"\"\"
    begin = torch.zeros(1024, dtype=torch.uint8, device="cuda")
    __cuda_array_interface__ = {"shape": (1 << 42,), "typestr": "|u1", "data": (begin.data_ptr(), False), "version": 2}

tell(lambda: torch.as_tensor(Beyond(), device="cuda")[-1024:].sum().item())
tell(compute)
"""
    assert told_by(script) == ["STICKY", "STICKY"]


def test_a_stages_own_assert_reaches_its_caller_as_what_it_is() -> None:
    script = """
class Indexing:
    device, max_batch_size = "cuda:0", 8
    def __call__(self, items):
        return [torch.zeros(4, device="cuda")[item] for item in items]

pipeline = Pipeline([Indexing()])
tell(lambda: pipeline(torch.tensor([1])).sum().item())
tell(lambda: pipeline(torch.tensor([9])).sum().item())
tell(lambda: pipeline(torch.tensor([1])).sum().item())
pipeline.close()
"""
    assert told_by(script) == ["WELL", "STICKY", "STICKY"]


def test_out_of_memory_is_not_and_the_device_goes_on() -> None:
    script = """
tell(lambda: torch.empty(1 << 46, dtype=torch.uint8, device="cuda"))
tell(compute)
"""
    assert told_by(script) == ["OUT_OF_MEMORY", "WELL"]


def test_pinned_memory_that_is_not_there_is_not() -> None:
    script = """
tell(lambda: torch.empty(1 << 46, dtype=torch.uint8, pin_memory=True))
tell(compute)
"""
    told = told_by(script)
    assert told[0] != "STICKY"
    assert told[1] == "WELL"


def test_a_wrong_shape_and_a_device_that_there_is_not_are_the_scripts() -> None:
    script = """
tell(lambda: torch.ones(2, 3, device="cuda") @ torch.ones(2, 3, device="cuda"))
tell(lambda: torch.ones(1, device="cuda:99"))
tell(compute)
"""
    assert told_by(script) == ["SCRIPT", "SCRIPT", "WELL"]
