"""Prepares a network for serving: its device, number format, memory layout, and what is compiled or captured for it.

A script hands its networks to `accelerate` in `model_fn` and calls what it gets back in their place; `MULTIGPU_DTYPE`,
`MULTIGPU_CHANNELS_LAST`, `MULTIGPU_CUDA_GRAPHS` and `MULTIGPU_COMPILE` decide what is done. Runs in a replica worker,
once for each network; compiling and capturing happen here and not at the first request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from multigpu_inference import log
from multigpu_inference.config import AccelerationSettings, Settings
from multigpu_inference.engine.cuda_graphs import CudaGraphs, CudaRecorder, Recorder, map_tensors
from multigpu_inference.errors import ModelError
from multigpu_inference.one_line import one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# torch.compile gives a function up that it had to compile more often, 8 times by itself; one network on the eight GPUs
# of a process is compiled 8 times for each bucket.
_MOST_COMPILATIONS = 256


class Accelerated:
    """A network as it is called in serving: takes and returns tensors as the network does, without gradients.

    Float inputs are turned into the number format that the network computes in, float outputs back into float32, so
    that what stands around the network does not change. Calls on CUDA only issue work on the current stream.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        device: torch.device,
        dtype: torch.dtype,
        *,
        cast_inputs: bool = True,
        example: Sequence[Tensor] = (),
        buckets: Sequence[int] = (),
        graphs: CudaGraphs | None = None,
    ) -> None:
        """Wrap a network that is already on its device.

        Args:
            network: What is called.
            device: Where it is.
            dtype: What it computes in.
            cast_inputs: Whether float inputs are turned into `dtype`.
            example: One item's inputs, [1, ...], where the shape is fixed.
            buckets: The batch sizes to which smaller batches of that shape are padded; none: batches run as they come.
            graphs: The network captured for those batch sizes.
        """
        self.device = device
        self.dtype = dtype
        self.buckets = tuple(buckets)
        self._network = network
        self._cast_inputs = cast_inputs
        self._shape = [(item.shape[1:], item.dtype) for item in example]
        self._graphs = graphs

    def __call__(self, *inputs: Tensor) -> Any:
        """Run a batch.

        Args:
            *inputs: The network's inputs, [N, ...], on its device.

        Returns:
            What the network returns, [N, ...], in memory of its own.
        """
        import torch

        with torch.inference_mode():
            given = [self._cast(x) for x in inputs] if self._cast_inputs else list(inputs)
            bucket = self._bucket(given)
            if bucket is None:
                return map_tensors(self._network(*given), _to_float32)
            size = len(given[0])
            if self._graphs is not None:
                # A copy in any case: the next replay writes over the graph's own output.
                return self._graphs(bucket, given, lambda output: _copy(output[:size]))
            outputs = self._network(*(_pad(x, bucket) for x in given))
            return map_tensors(outputs, lambda output: _to_float32(output[:size]))

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) if x.is_floating_point() else x

    def _bucket(self, inputs: Sequence[Tensor]) -> int | None:
        if not self.buckets or [(x.shape[1:], x.dtype) for x in inputs] != self._shape:
            return None
        sizes = {len(x) for x in inputs}
        return choose_bucket(sizes.pop(), self.buckets) if len(sizes) == 1 else None


def accelerate(
    network: nn.Module,
    device: torch.device | str,
    *,
    example: Tensor | Sequence[Tensor] | None = None,
    max_batch_size: int = 1,
    cast_inputs: bool = True,
    settings: AccelerationSettings | None = None,
    compile_backend: str | Callable[..., Any] = "inductor",
) -> Accelerated:
    """Prepare a network for serving. The network itself is changed: put into evaluation mode, moved and cast.

    With `example` the network's inputs have one shape but for the batch size, and `MULTIGPU_COMPILE` and, on CUDA,
    `MULTIGPU_CUDA_GRAPHS` apply: it is compiled or captured here for batches of 1, 2, 4, … `max_batch_size`, to which
    batches are padded. A batch of another shape, or a larger one, runs as it would without.

    Batch normalisation keeps its weights and statistics in float32 whatever the number format: a running variance may
    be more than float16 holds, and torch's kernels take both together.

    Args:
        network: With its weights loaded.
        device: Where it is to run.
        example: One item's input tensors, [1, ...], on any device; their values do not matter.
        max_batch_size: The largest batch that it will be given.
        cast_inputs: False leaves the inputs as they are, for a network that needs some of them exact and casts the
            others by itself.
        settings: What is to be done; by default what the environment says.
        compile_backend: The one that `torch.compile` is to use.

    Returns:
        What to call in the network's place.

    Raises:
        ModelError: where the network cannot be compiled or captured, which the settings ask for.
    """
    import torch

    settings = Settings.from_env(os.environ).acceleration if settings is None else settings
    device = torch.device(device)
    dtype: torch.dtype = getattr(torch, settings.dtype)
    _place(network, device, dtype, settings.channels_last)
    if example is None:
        return Accelerated(network, device, dtype, cast_inputs=cast_inputs)
    name = type(network).__name__
    graphs_apply = settings.cuda_graphs and device.type == "cuda"
    if settings.cuda_graphs and not graphs_apply:
        log.event("cuda_graphs_ignored", network=name, reason=f"a device of type {device.type} has none")
    if not (settings.compile or graphs_apply):
        return Accelerated(network, device, dtype, cast_inputs=cast_inputs)
    inputs = [_as_input(x, device, dtype if cast_inputs else None) for x in _as_sequence(example)]
    buckets = batch_buckets(max_batch_size)
    run: Callable[..., Any] = network
    if settings.compile:
        run = _compiled(network, inputs, buckets, compile_backend)
    graphs = _captured(run, name, inputs, buckets, CudaRecorder(device)) if graphs_apply else None
    return Accelerated(run, device, dtype, cast_inputs=cast_inputs, example=inputs, buckets=buckets, graphs=graphs)


def batch_buckets(max_batch_size: int) -> tuple[int, ...]:
    """The batch sizes that are prepared: the powers of two below the largest batch, and that one."""
    powers = (1 << exponent for exponent in range((max_batch_size - 1).bit_length()))
    return (*powers, max_batch_size)


def choose_bucket(size: int, buckets: Sequence[int]) -> int | None:
    """The smallest bucket that holds `size` items; None where there is none, or nothing to hold."""
    return min((bucket for bucket in buckets if bucket >= size), default=None) if size else None


def prefers_channels_last(device: torch.device, dtype: torch.dtype) -> bool:
    """Where channels innermost are faster: on the CPU (up to twice), and on a GPU's tensor cores in half precision."""
    return device.type == "cpu" or dtype.itemsize < 4


def _place(network: nn.Module, device: torch.device, dtype: torch.dtype, channels_last: bool | None) -> None:
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.utils import convert_conv2d_weight_memory_format

    network.eval().to(device=device, dtype=dtype)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.float()
    if prefers_channels_last(device, dtype) if channels_last is None else channels_last:
        # The weights alone: a convolution takes its input into the layout that they have, and the layers behind it
        # keep that. Those before it, which often work on three channels, stay as they were.
        convert_conv2d_weight_memory_format(network, torch.channels_last)


def _compiled(
    network: nn.Module, example: Sequence[Tensor], buckets: Sequence[int], backend: str | Callable[..., Any]
) -> Callable[..., Any]:
    """Compile a network for each bucket now."""
    import torch

    try:
        compiled: Callable[..., Any] = torch.compile(network, backend=backend, dynamic=False)
        with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=_MOST_COMPILATIONS):
            for size in buckets:
                compiled(*(_pad(x, size) for x in example))
    except Exception as error:
        raise ModelError(
            f"MULTIGPU_COMPILE=1: torch.compile of {type(network).__name__} failed, which needs a C++ compiler: "
            f"{one_line(error)}"
        ) from error
    return compiled


def _captured(
    network: Callable[..., Any], name: str, example: Sequence[Tensor], buckets: Sequence[int], recorder: Recorder
) -> CudaGraphs:
    """Capture a network for each bucket now."""
    import torch

    try:
        with torch.inference_mode():
            return CudaGraphs(network, example, buckets, recorder)
    except Exception as error:
        raise ModelError(f"MULTIGPU_CUDA_GRAPHS=1: {name} cannot be captured: {one_line(error)}") from error


def _as_sequence(example: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    import torch

    return [example] if isinstance(example, torch.Tensor) else example


def _as_input(example: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    if example.ndim == 0 or len(example) != 1:
        raise ValueError(f"an example is one item, [1, ...]; this one is {list(example.shape)}")
    return example.to(device, dtype) if dtype is not None and example.is_floating_point() else example.to(device)


def _pad(x: Tensor, size: int) -> Tensor:
    """A copy whose last item is repeated until there are `size`: zeros might be numbers that the network never sees.

    To be called in inference mode. Where nothing is missing it is a copy too: a compiled network would be compiled again
    for a tensor of another layout, if only of other strides, and for one that was made in another mode.
    """
    import torch

    missing = size - len(x)
    if missing:
        return torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))
    return x.clone(memory_format=torch.contiguous_format)


def _to_float32(output: Tensor) -> Tensor:
    return output.float() if output.is_floating_point() else output


def _copy(output: Tensor) -> Tensor:
    # Of float16 `float` is a copy already.
    return output.float() if output.is_floating_point() and output.dtype.itemsize < 4 else output.clone()
