"""A network in ONNX, run by ONNX Runtime on the memory of torch's tensors: nothing is copied on the way in or out.

On a GPU with the CUDA provider, or with TensorRT's in front of it where `MULTIGPU_TENSORRT=1` asks for that. A session belongs
to one stream, as the runtime wants it, so a stage with several streams has as many sessions, each with its copy of the weights.

Sources: ONNX Runtime's documentation, "CUDA Execution Provider", "TensorRT Execution Provider", and "IOBinding".
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from multigpu_inference.config import Settings
from multigpu_inference.errors import ModelError
from multigpu_inference.one_line import one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Provider: TypeAlias = tuple[str, dict[str, Any]]
# A dimension of an input or an output: a number, or the name of one that is known when the network is called.
Shape: TypeAlias = Sequence[int | str | None]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class OnnxNetwork:
    """A network as it is called in serving: tensors on its device in and out, without gradients."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load it.

        Args:
            path: The .onnx file.
            device: A CPU or a CUDA device.

        Raises:
            ModelError: where ONNX Runtime is not installed, has no provider for the device, or does not take the file.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ModelError(
                f"{path.name} needs ONNX Runtime: put onnxruntime (on GPUs onnxruntime-gpu) into code/requirements.txt"
            ) from None
        if device.type == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # those that torch brought
        self._runtime = onnxruntime
        self._path = path
        self._device = device
        self._wants_tensorrt = Settings.from_env(os.environ).acceleration.tensorrt
        self._sessions: dict[int, Any] = {}  # by stream
        self._loading = threading.Lock()
        session = self._session(0) if device.type == "cpu" else self._session(_stream(device))
        self._inputs = [(each.name, _TYPES.get(each.type, each.type), each.shape) for each in session.get_inputs()]
        self._outputs = [(each.name, _TYPES.get(each.type, each.type), each.shape) for each in session.get_outputs()]
        if self._wants_tensorrt and device.type == "cuda" and (varies := varying([shape for _, _, shape in self._inputs])):
            raise ModelError(
                f"MULTIGPU_TENSORRT=1: {path.name} takes any {varies}, and TensorRT would build an engine for each within a "
                "request: export it with one size"
            )

    def __call__(self, *inputs: Tensor) -> Any:
        """Run a batch.

        Args:
            *inputs: The network's inputs, [N, ...], on its device; floats are cast to what the network takes.

        Returns:
            Its output, or a tuple where it has several, on its device.
        """
        import torch

        if len(inputs) != len(self._inputs):
            raise ValueError(f"{self._path.name} takes {len(self._inputs)} inputs, not {len(inputs)}")
        given = [
            x.detach().to(self._device, getattr(torch, kind)).contiguous() if x.is_floating_point() else x.contiguous()
            for x, (_, kind, _) in zip(inputs, self._inputs, strict=True)
        ]
        outputs = self._run_on_cpu(given) if self._device.type == "cpu" else self._run_on_cuda(given)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _run_on_cpu(self, given: Sequence[Tensor]) -> list[Tensor]:
        import torch

        feed = {name: x.numpy() for (name, _, _), x in zip(self._inputs, given, strict=True)}
        return [torch.from_numpy(output) for output in self._session(0).run(None, feed)]

    def _run_on_cuda(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Issue the work on the current stream, into memory of torch's."""
        import torch

        stream, index = _stream(self._device), self._device.index or 0
        session = self._session(stream)
        binding = session.io_binding()
        for (name, _, _), x in zip(self._inputs, given, strict=True):
            binding.bind_input(name, "cuda", index, _numpy_type(x), tuple(x.shape), x.data_ptr())
        sizes = known_sizes([shape for _, _, shape in self._inputs], [x.shape for x in given])
        outputs = []
        for name, kind, shape in self._outputs:
            output = torch.empty(output_shape(self._path.name, shape, sizes), dtype=getattr(torch, kind), device=self._device)
            binding.bind_output(name, "cuda", index, _numpy_type(output), tuple(output.shape), output.data_ptr())
            outputs.append(output)
        options = self._runtime.RunOptions()
        if stream:  # else the session has a stream of its own, and its end must be waited for
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        else:
            torch.cuda.current_stream(self._device).synchronize()
        session.run_with_iobinding(binding, options)
        return outputs

    def _session(self, stream: int) -> Any:
        session = self._sessions.get(stream)
        if session is None:
            with self._loading:
                session = self._sessions.get(stream) or self._load(stream)
                self._sessions[stream] = session
                if stream:  # that of the thread that loaded the model has done its work: a stage has a stream of its own
                    self._sessions.pop(0, None)
        return session

    def _load(self, stream: int) -> Any:
        import torch

        options = self._runtime.SessionOptions()
        options.log_severity_level = 3  # errors; they come as exceptions too
        options.intra_op_num_threads = torch.get_num_threads()
        # A thread that spins while it waits takes a core from the other replicas and the pool.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = providers(self._device.type, self._device.index or 0, stream, tensorrt=self._wants_tensorrt)
        missing = {name for name, _ in wanted} - set(self._runtime.get_available_providers())
        if missing:
            raise ModelError(
                f"{self._path.name}: this build of ONNX Runtime has no {', '.join(sorted(missing))}; GPUs need onnxruntime-gpu"
            )
        try:
            session = self._runtime.InferenceSession(str(self._path), options, providers=wanted)
        except Exception as error:
            raise ModelError(f"{self._path.name} cannot be loaded by ONNX Runtime: {one_line(error)}") from error
        if wanted[0][0] not in session.get_providers():
            # It goes on with the next one by itself, without a word: on a GPU machine that would be the CPU.
            raise ModelError(
                f"{self._path.name}: ONNX Runtime cannot use {wanted[0][0]} here; its CUDA, cuDNN or TensorRT libraries are "
                "missing, or of another version"
            )
        return session


def providers(device_type: str, index: int, stream: int, *, tensorrt: bool) -> list[Provider]:
    """What runs the network, the first that can; whatever none of a GPU's takes runs on the CPU.

    Args:
        device_type: cpu or cuda.
        index: Of the CUDA device.
        stream: The CUDA stream's handle; 0 for the default stream, which no session can be given.
        tensorrt: Whether TensorRT comes first, on GPUs.
    """
    cpu: Provider = (CPU, {})
    if device_type == "cpu":
        return [cpu]
    on_stream: dict[str, Any] = {"user_compute_stream": str(stream)} if stream else {}
    cuda: Provider = (CUDA, {"device_id": index, **on_stream})
    if not tensorrt:
        return [cuda, cpu]
    # Building an engine takes minutes; a replica that is replaced finds it here.
    cache = os.path.join(tempfile.gettempdir(), "multigpu-tensorrt")
    kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": cache, "trt_timing_cache_enable": True}
    return [(TENSORRT, {"device_id": index, **on_stream, **kept}), cuda, cpu]


def known_sizes(shapes: Sequence[Shape], given: Sequence[Sequence[int]]) -> dict[str, int]:
    """The sizes of the dimensions that a network's inputs name, from the inputs of one call."""
    named = ((name, size) for shape, sizes in zip(shapes, given, strict=True) for name, size in zip(shape, sizes, strict=True))
    return {name: size for name, size in named if isinstance(name, str)}


def varying(shapes: Sequence[Shape]) -> str:
    """The names of the dimensions that vary beside the first, the batch's; nothing where there are none."""
    return ", ".join(dict.fromkeys(str(size) for shape in shapes for size in shape[1:] if not isinstance(size, int)))


def output_shape(network: str, shape: Shape, sizes: Mapping[str, int]) -> list[int]:
    """An output's shape in one call.

    Raises:
        ModelError: where it has a dimension that is none of the inputs'.
    """
    unknown = [each for each in shape if not isinstance(each, int) and each not in sizes]
    if unknown:
        raise ModelError(
            f"{network}: the output's dimension {unknown[0]!r} is none of the inputs': export it with the same name"
        )
    return [each if isinstance(each, int) else sizes[str(each)] for each in shape]


def _stream(device: torch.device) -> int:
    import torch

    handle: int = torch.cuda.current_stream(device).cuda_stream
    return handle


def _numpy_type(x: Tensor) -> Any:
    import numpy as np

    return np.dtype(str(x.dtype).removeprefix("torch."))
