"""The four functions that a script need not have: what SageMaker's PyTorch toolkit does where one is missing.

    model.pt ──model_fn──► network      (or the only file of a network in the model folder: `load_network`)
    JSON, CSV, npy ──input_fn──► tensor ──predict_fn──► tensor ──output_fn──► JSON, CSV, npy

Run where a script's own would run: `model_fn` and `predict_fn` in a replica worker, the others in pool workers. They do what
the toolkit's do (sagemaker-pytorch-inference 2.0.25, `default_pytorch_inference_handler`), with three differences: a body that
cannot be read is 400 and not 500, an npy body is never unpickled, and what other runtimes run loads too (.pt2, .onnx).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import tokenize
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from multigpu_inference import content_type as types
from multigpu_inference.encoding import encode
from multigpu_inference.errors import BadRequest, NotAcceptable, UnsupportedMediaType
from multigpu_inference.model_file import find_model_file
from multigpu_inference.runtimes.load_network import load_network

if TYPE_CHECKING:
    import torch


def model_fn(model_dir: str) -> Any:
    """Load the model file onto this process's first GPU, or the CPU where it sees none.

    Returns:
        What `load_network` makes of it; called with a tensor.

    Raises:
        ModelError: where there is no such file, or it is not such a model.
    """
    return load_network(find_model_file(Path(model_dir)), _device())


def input_fn(body: str | bytes | bytearray, content_type: str) -> torch.Tensor:
    """A tensor from JSON or CSV (float32) or npy (its own type), on this process's GPU where it sees one.

    Raises:
        BadRequest: where the body is not what its type says.
        UnsupportedMediaType: for any other type.
    """
    import torch

    media_type = types.media_type(content_type)
    if media_type not in _DECODERS:
        raise UnsupportedMediaType(f"the content type must be one of {', '.join(_DECODERS)}")
    try:
        array = _DECODERS[media_type](body)
        tensor = torch.from_numpy(array) if media_type == types.NPY else torch.from_numpy(np.asarray(array, np.float32))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadRequest(f"the body is no array in {media_type}") from error
    return tensor.to(_device())


def predict_fn(data: Any, model: Any) -> Any:
    """Call the model, in evaluation mode, without gradients, on its device."""
    import torch

    if isinstance(model, torch.nn.Module):
        with contextlib.suppress(NotImplementedError):  # an exported program is in one mode for good
            model.eval()
        model = model.to(_device())
    with torch.no_grad():
        return model(data.to(_device()) if hasattr(data, "to") else data)


def output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    """The prediction as JSON, CSV or npy, whichever the client names first; numbers of a tensor as Python's own.

    Raises:
        NotAcceptable: where it names none of them.
    """
    made = (types.JSON, types.CSV, types.NPY)
    chosen = types.first_accepted(accept, made)
    if chosen is None:
        raise NotAcceptable(f"the answer can be one of {', '.join(made)}")
    return encode(_as_lists(prediction), chosen), chosen


def offer_toolkit() -> None:
    """Let a script import the toolkit's handler, to call its defaults, where the toolkit itself is not installed."""
    package = "sagemaker_pytorch_serving_container"
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return
    sys.modules[package] = ModuleType(package)
    sys.modules[package].__path__ = []
    for name in ("default_pytorch_inference_handler", "default_inference_handler"):
        module = ModuleType(f"{package}.{name}")
        vars(module)["DefaultPytorchInferenceHandler"] = ToolkitHandler
        sys.modules[module.__name__] = module
        setattr(sys.modules[package], name, module)


class ToolkitHandler:
    """The toolkit's `DefaultPytorchInferenceHandler`, for scripts that extend its defaults."""

    VALID_CONTENT_TYPES = (types.JSON, types.NPY)

    def default_model_fn(self, model_dir: str) -> Any:
        """`model_fn`."""
        return model_fn(model_dir)

    def default_input_fn(self, input_data: Any, content_type: str) -> torch.Tensor:
        """`input_fn`."""
        return input_fn(input_data, content_type)

    def default_predict_fn(self, data: Any, model: Any) -> Any:
        """`predict_fn`."""
        return predict_fn(data, model)

    def default_output_fn(self, prediction: Any, accept: str) -> bytes:
        """`output_fn`, without the type."""
        return output_fn(prediction, accept)[0]


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _as_lists(prediction: Any) -> Any:
    """A tensor as nested lists; a tensor within something else is `encode`'s."""
    import torch

    return prediction.detach().cpu().tolist() if isinstance(prediction, torch.Tensor) else prediction


def _from_json(body: str | bytes | bytearray) -> Any:
    return np.array(json.loads(body))


def _from_csv(body: str | bytes | bytearray) -> Any:
    text = body if isinstance(body, str) else bytes(body).decode("utf-8")
    if not text.strip():
        raise ValueError("no rows")
    return np.genfromtxt(io.StringIO(text), delimiter=",")


def _from_npy(body: str | bytes | bytearray) -> Any:
    """An array out of an npy body.

    By its header, and never by `np.load`, which unpickles where it may and takes a header's word for how much memory to take.
    """
    raw = bytes(body.encode("latin-1") if isinstance(body, str) else body)
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read_header(stream)
    except (SyntaxError, tokenize.TokenError) as error:  # NumPy reads a header as Python
        raise ValueError("no header") from error
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError("objects are not read, and sizes are known")
    array = np.frombuffer(bytearray(raw[stream.tell() :]), dtype)
    return array.reshape(shape, order="F" if fortran else "C")


_DECODERS = {types.JSON: _from_json, types.CSV: _from_csv, types.NPY: _from_npy}
