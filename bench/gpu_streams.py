"""Several streams of each stage on one copy of the weights: how fast, and how much memory one more takes."""

from __future__ import annotations

import statistics

import torch

from bench.gpu_chain import called_rate, close
from bench.gpu_report import Row, Section
from bench.gpu_setup import FLOAT16, Setup, free_memory, number_format

from multigpu_inference import Pipeline  # isort: skip

_STREAMS = (1, 2, 4, 8)
_MIB = 1 << 20


def measure_streams(setup: Setup, section: Section) -> None:
    """Both stages with batches of 1, called by enough threads to fill all streams."""
    cuda = setup.device.type == "cuda"
    precision = FLOAT16 if cuda else setup.chain_precisions[0]
    with number_format(precision):
        stages = setup.stages(precision, 1)
        weights_mib = _allocated_mib(setup.device)
        reserved: dict[int, float] = {}
        for streams in _STREAMS:
            free_memory()
            if cuda:
                torch.cuda.reset_peak_memory_stats(setup.device)
            pipeline = Pipeline(stages, streams=streams)
            called_rate(setup, pipeline, 4 * streams)  # warms
            rate = statistics.median(called_rate(setup, pipeline, 4 * streams) for _ in range(setup.samples))
            close(pipeline)
            reserved[streams] = torch.cuda.max_memory_reserved(setup.device) / _MIB if cuda else 0.0
            note = f"{4 * streams} callers; {reserved[streams]:.0f} MiB reserved at most"
            section.rows.append(
                Row(f"{streams} stream{'s' if streams > 1 else ''} a stage", precision.name, 1, rate, None, note)
            )
    first, last = _STREAMS[0], _STREAMS[-1]
    each = (reserved[last] - reserved[first]) / (last - first)
    section.notes.append(f"One more stream of both stages takes {each:.0f} MiB, their weights {weights_mib:.0f} MiB once.")


def _allocated_mib(device: torch.device) -> float:
    return torch.cuda.memory_allocated(device) / _MIB if device.type == "cuda" else 0.0
