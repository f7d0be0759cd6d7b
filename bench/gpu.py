"""How much of one GPU the replica's stages use: `python -m bench.gpu`, from the repository's root.

Each section stands alone: one that fails is reported, and the next one runs. A figure is the median of three samples, and
next to it stands the limit: replays of a CUDA graph of the same batch, its data already on the device. Needs torch, NumPy
and Pillow, and neither the front end nor an installation of the package; about six minutes on a large GPU.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from bench.gpu_chain import measure_chain, measure_replicas, record_trace
from bench.gpu_networks import measure_copies, measure_layouts, measure_networks
from bench.gpu_report import Section, write_report
from bench.gpu_setup import ROOT, Setup, free_memory
from bench.gpu_streams import measure_streams

OUTPUT = ROOT / "build" / "bench" / "gpu"
Measure = Callable[[Setup, Section], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0, or 1 where a section failed or there is no such device."""
    options = _parser().parse_args(arguments)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        print("bench.gpu: torch sees no GPU; --device cpu tries the plumbing with small networks", file=sys.stderr)
        return 1
    setup = Setup.make(options.device, options.quick)
    setup.take_threads()
    sections = []
    for name, (title, measure) in _sections(options.out).items():
        if options.only and name not in options.only:
            continue
        sections.append(_run(setup, Section(name, title), measure))
        # After each, so that what has been measured is kept whatever happens to the rest.
        text = write_report(options.out, _about(setup), sections)
    print(text)
    print(f"{options.out / 'gpu.md'}, and beside it gpu.json and the traces")
    return 1 if any(section.error for section in sections) else 0


def _run(setup: Setup, section: Section, measure: Measure) -> Section:
    began = time.monotonic()
    try:
        measure(setup, section)
    except Exception as error:  # the other sections go on
        traceback.print_exc()
        text = " ".join(str(error).split())
        section.error = f"{type(error).__name__}: {text[:300]}"
    free_memory()
    section.seconds = time.monotonic() - began
    print(f"{section.name}: {len(section.rows)} figures in {section.seconds:.0f} s", file=sys.stderr)
    return section


def _sections(out: Path) -> dict[str, tuple[str, Measure]]:
    return {
        "networks": ("Each network alone", measure_networks),
        "chain": ("Both stages: serial, overlapped, batched", measure_chain),
        "streams": ("Streams of a stage, on one copy of its weights", measure_streams),
        "replicas": ("Replicas on one device", measure_replicas),
        "copies": ("The pictures' way to the device", measure_copies),
        "layouts": ("Channels last or planes", measure_layouts),
        "trace": ("Trace", partial(record_trace, folder=out)),
    }


def _about(setup: Setup) -> dict[str, str]:
    cuda = setup.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(setup.device) if cuda else f"CPU ({platform.machine()}), small networks",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version() if cuda else None}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "sizes": f"pictures of {setup.width} x {setup.height}; random weights",
        "TF32": "convolutions of `float32, TF32`, torch's default, have it; those of `float32` do not",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="What the stages reach on one GPU.")
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1, …; cpu tries the plumbing")
    parser.add_argument("--quick", action="store_true", help="one short sample of each figure, and fewer of them")
    parser.add_argument("--out", type=Path, default=OUTPUT, help="folder of the table, the JSON and the traces")
    parser.add_argument("--only", nargs="+", choices=list(_sections(OUTPUT)), help="some sections alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
