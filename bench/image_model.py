"""What a run sends its pictures to: a workload of the benchmark that takes pictures, or a model of the user's own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.bench_error import BenchError
from bench.model_folder import make_model_folder
from bench.setup import HTTP
from bench.workload import WORKLOADS, Workload

_JPEG = "image/jpeg"
_SIMULATED_SIZE, _SIZE = (160, 120), (640, 480)


@dataclass(frozen=True)
class ImageModel:
    """A model, and what belongs to it.

    Attributes:
        where: For the journal: a workload's name, or a path.
        workload: The workload; None of the user's own.
        path: A folder that a model.tar.gz unpacks to, or a script alone; None of a workload.
    """

    where: str
    workload: Workload | None = None
    path: Path | None = field(default=None)

    @property
    def accept(self) -> str:
        """What is asked for; "": what the script makes by itself."""
        return self.workload.accept if self.workload is not None else ""

    @property
    def picture_size(self) -> tuple[int, int]:
        """Of seeded pictures, in pixels: a simulated model needs small ones only."""
        return _SIMULATED_SIZE if self.simulated else _SIZE

    @property
    def simulated(self) -> bool:
        """Whether it runs on simulated devices."""
        return self.workload is not None and self.workload.simulation is not None

    def prepare(self, base_dir: Path) -> None:
        """Make `base_dir/model`, as SageMaker would have unpacked it."""
        if self.workload is not None:
            make_model_folder(self.workload, base_dir)
            return
        assert self.path is not None
        model = base_dir / "model"
        if self.path.is_dir():
            base_dir.mkdir(parents=True)
            model.symlink_to(self.path.resolve())
            return
        (model / "code").mkdir(parents=True)
        shutil.copy(self.path, model / "code" / "inference.py")

    def settings(self, workers: int, preprocess: int, devices: int, folder: str) -> Mapping[str, str]:
        """The container's environment.

        Args:
            workers: Replicas.
            preprocess: Processes that transform.
            devices: How many are simulated, where the model is.
            folder: Where simulated devices keep their locks.
        """
        settings = {
            "MULTIGPU_FRONT_END": HTTP,  # its page of metrics says what the devices do
            "MULTIGPU_NUM_REPLICAS": str(workers),
            "MULTIGPU_PREPROCESS_WORKERS": str(preprocess),
        }
        if self.workload is not None:
            settings |= self.workload.settings
            if self.workload.simulation is not None:
                settings |= self.workload.simulation.environment(devices, folder)
        return settings


def find_model(text: str) -> ImageModel:
    """A workload's name, or the path of a model folder or of a script; `BenchError` where it is neither."""
    named = {name: workload for name, workload in WORKLOADS.items() if workload.content_type == _JPEG}
    if text in named:
        return ImageModel(text, named[text])
    path = Path(text)
    if path.is_dir() or (path.is_file() and path.suffix == ".py"):
        return ImageModel(str(path.resolve()), path=path)
    if path.is_file():
        raise BenchError(f"--model {text}: unpack the archive and name its folder, or name a script, FILE.py")
    raise BenchError(f"--model {text}: allowed are {', '.join(named)}, a model's folder, and a script, FILE.py")
