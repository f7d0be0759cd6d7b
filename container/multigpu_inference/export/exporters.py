"""Writes a network into a file: ONNX, or a package of code that AOTInductor compiled."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multigpu_inference.errors import ModelError
from multigpu_inference.export.exportable import Exportable
from multigpu_inference.one_line import one_line

_OUTPUT = "output"


def to_onnx(exportable: Exportable, path: Path) -> None:
    """Write a .onnx file, weights within.

    Raises:
        ModelError: where it cannot be exported, or the packages for that are missing.
    """
    import torch

    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ModelError("exporting to ONNX needs the packages onnx and onnxscript") from None
    with _quietly(exportable, path):
        torch.onnx.export(
            exportable.network,
            tuple(exportable.inputs.values()),
            str(path),
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(exportable),
            input_names=list(exportable.inputs),
            output_names=[_OUTPUT],
            external_data=False,
            verbose=False,
        )


def to_package(exportable: Exportable, path: Path) -> None:
    """Compile a .pt2 package for CPUs like this machine's; a GPU cannot run it.

    Raises:
        ModelError: where it cannot be compiled, for want of a C++ compiler above all.
    """
    import torch

    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ModelError("AOTInductor needs a C++ compiler, and there is none here: install g++")
    with _quietly(exportable, path), torch.no_grad():
        inputs = tuple(exportable.inputs.values())
        program = torch.export.export(exportable.network, inputs, dynamic_shapes=_dynamic_shapes(exportable))
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))


EXPORTERS: dict[str, tuple[str, Callable[[Exportable, Path], None]]] = {
    "onnx": (".onnx", to_onnx),
    "aotinductor": (".pt2", to_package),
}


def _dynamic_shapes(exportable: Exportable) -> tuple[Any, ...]:
    """What `torch.export` is to know of sizes, by input; sizes of one name are one symbol."""
    from torch.export import Dim

    symbols: dict[str, Any] = {}
    shapes = []
    for name in exportable.inputs:
        shape = {}
        for place, size in exportable.sizes.get(name, {}).items():
            symbol = symbols.setdefault(size.name, Dim(size.name, min=size.smallest, max=size.largest))
            shape[place] = size.multiple * symbol if size.multiple > 1 else symbol
        shapes.append(shape)
    return tuple(shapes)


@contextmanager
def _quietly(exportable: Exportable, path: Path) -> Iterator[None]:
    """Keep to ourselves what exporters tell their own developers; a failure is one line, and leaves no file."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        path.unlink(missing_ok=True)
        name = type(exportable.network).__name__
        raise ModelError(f"{name} cannot be exported to {path.suffix[1:]}: {one_line(error)}") from error
    finally:
        logging.disable(logging.NOTSET)
