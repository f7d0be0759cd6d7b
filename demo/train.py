"""Trains the demo's two small networks on pictures composed on the fly.

    python demo/train.py                                     both networks, into build/train/
    python demo/train.py --network matting --steps 6000      one of them, longer
    python demo/train.py --resume                            go on where the last run was stopped

On a GPU where there is one. The output folder gets a checkpoint a minute, from which `--resume` goes on; on a CPU it then
takes the very steps that an unbroken run would have taken. At the end the folder holds what `demo/weights/` does: the
weights as the application loads them, their scores on pictures that no training sees, and the model card.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Started as a script, from anywhere: the reference application is a folder, not an installed package.
_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT / folder) for folder in ("code", "container") if str(_ROOT / folder) not in sys.path]

from training import evaluation  # noqa: E402
from training.model_card import update_card  # noqa: E402
from training.phases import divide  # noqa: E402
from training.progress_bar import ProgressBar  # noqa: E402
from training.samples import NETWORKS, load_samples  # noqa: E402
from training.trainer import Plan, Trainer  # noqa: E402
from training.weight_files import NAMES, write_weights  # noqa: E402

WEIGHTS = Path(__file__).resolve().parent / "weights"
_SCORES, _CARD = "scores.json", "README.md"
_SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Defaults:
    """What a network is trained with where the command line says nothing."""

    steps: int
    size: int
    batch: int
    learning_rate: float


# About an hour and a half on two CPU cores that do nothing else, by the pace of single steps.
DEFAULTS = {"trimap": Defaults(3000, 320, 4, 2e-3), "matting": Defaults(4000, 128, 8, 8e-4)}


def main(words: Sequence[str] | None = None) -> int:
    """Train, measure, write; return the exit code."""
    arguments = _parse(words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    name = arguments.device if arguments.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for file in (*NAMES.values(), _SCORES, _CARD):  # what this run does not make stays as it is committed
        if not (out / file).exists() and (WEIGHTS / file).exists():
            shutil.copy(WEIGHTS / file, out / file)
    record = json.loads((out / _SCORES).read_text()) if (out / _SCORES).exists() else {"trainings": {}}
    try:
        for network in NETWORKS if arguments.network == "all" else (arguments.network,):
            record["trainings"][network] = train(network, _plan(network, device, arguments), device, out, arguments)
    except ValueError as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; --resume goes on from the last checkpoint")
        return 130
    if all((out / file).exists() for file in NAMES.values()):
        _measure(out, record, arguments.held_out)
    return 0


def train(network: str, plan: Plan, device: torch.device, out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one network and write its weights; return what the record says of it."""
    trainer = Trainer(plan, device)
    checkpoint = out / f"{network}.pt"
    if arguments.resume and checkpoint.exists():
        trainer.resume(checkpoint)
    bar = ProgressBar(network, trainer.step, plan.steps)
    before = saved = time.monotonic()
    batches = load_samples(
        network,
        seed=plan.seed,
        steps=plan.steps,
        size=plan.size,
        batch=plan.batch,
        first_step=trainer.step,
        workers=arguments.workers,
    )
    for sample in batches:
        bar.advance(trainer.step + 1, trainer.take(sample))
        now = time.monotonic()
        trainer.seconds += now - before
        before = now
        if now - saved >= _SAVE_EVERY_S:
            saved = now
            trainer.save(checkpoint)
    trainer.save(checkpoint)
    write_weights(trainer.averaged, out / NAMES[network])
    phases = divide(network, plan.steps, plan.size, plan.batch)
    return {
        "steps": plan.steps,
        "samples": sum((phase.end_step - phase.first_step) * phase.batch for phase in phases),
        "size": plan.size,
        "seed": plan.seed,
        "precision": plan.precision,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "seconds": round(trainer.seconds),
    }


def _measure(out: Path, record: dict[str, Any], pictures: int) -> None:
    """Write the scores and the card's figures."""
    print(f"measuring on {pictures} held-out pictures", flush=True)
    record["held_out"] = {"pictures": pictures, "size": evaluation.SIZE, "seed": evaluation.SEED}
    record["scores"] = evaluation.evaluate(out, pictures)
    (out / _SCORES).write_text(json.dumps(record, indent=2) + "\n")
    card = (out / _CARD).read_text() if (out / _CARD).exists() else ""
    (out / _CARD).write_text(update_card(card, record))
    for name, score in record["scores"].items():
        print(f"  {name:24} {score:.4f}")
    print(f"weights, {_SCORES} and {_CARD} are in {out}; copied to {WEIGHTS}, they are the demo's")


def _plan(network: str, device: torch.device, arguments: argparse.Namespace) -> Plan:
    defaults = DEFAULTS[network]
    return Plan(
        network=network,
        steps=arguments.steps or defaults.steps,
        size=arguments.size or defaults.size,
        batch=arguments.batch or defaults.batch,
        seed=arguments.seed,
        learning_rate=defaults.learning_rate,
        precision=choose_precision(network, device, arguments.precision),
    )


def choose_precision(network: str, device: torch.device, asked: str = "auto") -> str:
    """The number format of the convolutions: half where that is faster and the network bears it."""
    if asked != "auto":
        return asked
    # Matting's answer is a colour difference: bfloat16's eight bits are too coarse for it.
    able = device.type == "cuda" or "avx512_bf16" in _cpu_flags()
    return "bfloat16" if network == "trimap" and able else "float32"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo's two small networks on composed pictures.")
    parser.add_argument("--network", choices=(*NETWORKS, "all"), default="all")
    parser.add_argument("--steps", type=_positive, help="of each network; by default what two CPU cores do in an hour or less")
    parser.add_argument("--size", type=_positive, help="side of the largest pictures, in pixels")
    parser.add_argument("--batch", type=_positive, help="pictures in a step")
    parser.add_argument("--seed", type=_seed, default=1)
    parser.add_argument("--out", type=Path, default=_ROOT / "build" / "train")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in the output folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--threads", type=_positive, help="of torch; by default one for each core")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose pictures; 8 or more beside a GPU")
    parser.add_argument("--held-out", type=_positive, default=evaluation.PICTURES, help="pictures to measure on, at the end")
    return parser.parse_args(words)


def _seed(text: str) -> int:
    number = int(text)
    if number < 0 or number == evaluation.SEED:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more, and not {evaluation.SEED}, the held-out pictures' own")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
