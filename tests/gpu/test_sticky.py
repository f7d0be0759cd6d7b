"""Which errors of a device only a new process heals; each in a process that may be lost."""

from __future__ import annotations

import os
import subprocess
import sys

HEAD = """
import torch
from multigpu_inference.engine.worker import is_sticky

def sticky(work):
    try:
        work()
        torch.cuda.synchronize()
    except Exception as error:
        return is_sticky(error)
    return None
"""


def answers_of(script: str) -> list[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", HEAD + script], env=environ, capture_output=True, text=True)
    return done.stdout.split()


def test_a_device_side_assert_is_sticky_and_so_is_what_comes_after() -> None:
    answers = answers_of("""
values, index = torch.zeros(4, device="cuda"), torch.tensor([9], device="cuda")
print(sticky(lambda: values[index].sum().item()), flush=True)
print(sticky(lambda: torch.ones(2, device="cuda").sum().item()), flush=True)
""")
    assert answers == ["True", "True"]


def test_out_of_memory_is_not_and_the_device_goes_on() -> None:
    answers = answers_of("""
print(sticky(lambda: torch.empty(1 << 46, dtype=torch.uint8, device="cuda")), flush=True)
print(sticky(lambda: torch.ones(2, device="cuda").sum().item()), flush=True)
""")
    assert answers == ["False", "None"]


def test_a_wrong_shape_is_not() -> None:
    answers = answers_of("""
print(sticky(lambda: torch.ones(2, 3, device="cuda") @ torch.ones(2, 3, device="cuda")), flush=True)
""")
    assert answers == ["False"]
