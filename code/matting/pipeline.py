"""The two stages of a replica: a picture becomes a trimap on one device, and a matte on the next.

    uint8 [H, W, 3] ──► TrimapStage ──► Trimapped ──► MattingStage ──► Matte
    on the CPU          device A        on A          device B         on B

Runs in the replica workers, each stage on a stream of its own. A stage only issues work:
nothing here waits for its device, so that copies and the two networks of successive requests can overlap.
Who calls a stage makes its stream wait for whatever made its items. What may wait unseen, and so does not stand here:
`.item()` and truth values of tensors, boolean and list indices, and tensors made on the device out of Python's lists;
Python's numbers as arguments do not.

A batch is what a stage's network takes in one call: any pictures in stage 1, in stage 2 those of one padded size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from matting import trimap as trimaps
from matting.exported import (
    TRIMAP_SIZE,
    Exported,
    FusedMap,
    load_exported_matting_network,
    load_exported_trimap_network,
)
from matting.fba import FBA, SIZE_MULTIPLE
from matting.imagenet import normalise
from matting.u2net import U2Net
from matting.weights import load_matting_network, load_trimap_network
from multigpu_inference import accelerate

if TYPE_CHECKING:
    from multigpu_inference.config import AccelerationSettings

# By device: what keeps a CPU request short, and what fits a GPU of 16 GB (the paper's code asks for 11 GB
# from Full HD on).
MAX_PIXELS = {"cpu": 1_050_000, "cuda": 2_100_000}
_BATCH = {"cpu": 1, "cuda": 8}
# Pixels of a batch of stage 2, padding included. In float32 the network's features take up to 2.2 KB for each, so 9 GiB
# on a GPU, which a few pictures keep busy; on a CPU a larger batch is no faster.
BATCH_PIXELS = {"cpu": 2_100_000, "cuda": 4 << 20}


class Trimapped(NamedTuple):
    """A picture, uint8 [H, W, 3], and its trimap, uint8 [H, W] of 0, 128 and 255, on stage 1's device."""

    image: Tensor
    trimap: Tensor


class Matte(NamedTuple):
    """Alpha, uint8 [H, W], the foreground's own colours, uint8 [H, W, 3], and the trimap, uint8 [H, W], on stage 2's device."""

    alpha: Tensor
    foreground: Tensor
    trimap: Tensor


class TrimapStage:
    """Stage 1: U²-Net at 320 x 320, whatever the picture's size; a batch is one pass through the network."""

    def __init__(
        self,
        network: U2Net | Exported,
        device: torch.device,
        max_batch_size: int | None = None,
        settings: AccelerationSettings | None = None,
    ) -> None:
        """Put the network on the device.

        Args:
            network: with one output channel or three; or its fused map alone, as another runtime runs it.
            device: where to run.
            max_batch_size: most items of one call; by default 8 on a GPU and 1 on the CPU.
            settings: number format, layout, graphs, compilation; None is what the environment says.
        """
        self.device = device
        self.max_batch_size = _BATCH.get(device.type, 1) if max_batch_size is None else max_batch_size
        if isinstance(network, Exported):
            self._fused_map: Callable[[Tensor], Tensor] = network
        else:
            example = torch.zeros(1, 3, TRIMAP_SIZE, TRIMAP_SIZE)
            self._fused_map = accelerate(
                FusedMap(network), device, example=example, max_batch_size=self.max_batch_size, settings=settings
            )

    def batch_key(self, item: Tensor) -> Hashable:
        """All pictures share a batch: whatever their sizes, the network sees them at one."""
        return TRIMAP_SIZE

    def __call__(self, items: Sequence[Tensor]) -> list[Trimapped]:
        """Draw the trimaps of pictures, uint8 [H, W, 3] each, of any sizes and on any device."""
        if not items:
            return []
        with torch.inference_mode():
            images = [item.to(self.device, non_blocking=True) for item in items]
            batch = torch.cat([network_input(image) for image in images])
            fused = self._fused_map(batch)
            draw = trimaps.trimap_from_logits if fused.shape[1] == 3 else _trimap_from_saliency
            return [
                Trimapped(image, draw(_resize(logits[None], image.shape[:2])[0]))
                for image, logits in zip(images, fused, strict=True)
            ]


class MattingStage:
    """Stage 2: FBA matting at the picture's own size, up to a limit; larger ones are matted reduced.

    A batch is one pass through the network, of pictures that are equally large once they are padded.
    """

    def __init__(
        self,
        network: FBA | Exported,
        device: torch.device,
        max_pixels: int | None = None,
        max_batch_size: int | None = None,
        settings: AccelerationSettings | None = None,
    ) -> None:
        """Put the network on the device.

        Args:
            network: any variant; or what is called as it is, run by another runtime.
            device: where to run.
            max_pixels: most pixels matted at their own size; 0 is no limit, None this device type's default.
            max_batch_size: most items of one call; by default 8 on a GPU and 1 on the CPU.
            settings: number format and layout; None is what the environment says.
        """
        self.device = device
        self.max_batch_size = _BATCH.get(device.type, 1) if max_batch_size is None else max_batch_size
        self.max_pixels = MAX_PIXELS.get(device.type, 0) if max_pixels is None else max_pixels
        self._batch_pixels = BATCH_PIXELS.get(device.type, BATCH_PIXELS["cuda"])
        # Without an example: pictures come in any size, and a graph holds for one. The inputs stay float32, as
        # the network casts what may be cast.
        prepared = (
            network if isinstance(network, Exported) else accelerate(network, device, cast_inputs=False, settings=settings)
        )
        self._network: Callable[[Tensor, Tensor], Tensor] = prepared

    def batch_key(self, item: Trimapped) -> tuple[int, int]:
        """The height and width at which the network sees a picture, padding included."""
        height, width = working_size(item.trimap.shape, self.max_pixels)
        return height + -height % SIZE_MULTIPLE, width + -width % SIZE_MULTIPLE

    def batch_limit(self, key: tuple[int, int]) -> int:
        """Most pictures of this size in one batch, at least 1: it is their pixels that fill a GPU."""
        height, width = key
        return max(1, min(self.max_batch_size, self._batch_pixels // (height * width)))

    def __call__(self, items: Sequence[Trimapped]) -> list[Matte]:
        """Matte pictures with their trimaps, all of one `batch_key`, from any device."""
        if not items:
            return []
        with torch.inference_mode():
            images = [item.image.to(self.device, non_blocking=True) for item in items]
            drawn = [item.trimap.to(self.device, non_blocking=True) for item in items]
            inputs = [self._network_inputs(image, trimap) for image, trimap in zip(images, drawn, strict=True)]
            padded, known = (torch.cat(column) for column in zip(*inputs, strict=True))
            estimates = self._network(padded, known)[:, :4].split(1)
            return [self._matte(*item) for item in zip(images, drawn, estimates, strict=True)]

    def _network_inputs(self, image: Tensor, trimap: Tensor) -> tuple[Tensor, Tensor]:
        """The network's inputs for one picture, float [1, 3, H, W] and [1, 2, H, W], H and W as in its key."""
        size = trimap.shape
        working = working_size(size, self.max_pixels)
        rgb = _channels_first(image)
        if working != size:
            rgb = _resize(rgb, working, antialias=True)
            trimap = F.interpolate(trimap[None, None], size=working, mode="nearest-exact")[0, 0]
        # Padded, not resized, to the network's multiple of 8: a resized trimap is no trimap any more. Both
        # are reflected, so that they agree in the padding too, and no distance inside changes: a mirrored
        # pixel is never nearer than the one it mirrors.
        known = trimaps.two_channels(trimap)[None]
        return pad_to_multiple(rgb, SIZE_MULTIPLE), pad_to_multiple(known, SIZE_MULTIPLE)

    def _matte(self, image: Tensor, trimap: Tensor, estimate: Tensor) -> Matte:
        """Cut a picture's estimate, [1, 4, H, W], back to its size, and keep what its trimap knows."""
        size = trimap.shape
        working = working_size(size, self.max_pixels)
        estimate = estimate[..., : working[0], : working[1]]
        if working != size:
            estimate = _resize(estimate, size)
        alpha, foreground = estimate[0, :1], estimate[0, 1:]
        alpha = torch.where(trimap == trimaps.BACKGROUND, 0.0, alpha)
        alpha = torch.where(trimap == trimaps.FOREGROUND, 1.0, alpha)
        foreground = torch.where(alpha == 1, _channels_first(image)[0], foreground)
        return Matte(_to_bytes(alpha[0]), _to_bytes(foreground.permute(1, 2, 0)).contiguous(), trimap)


def load_pipeline_stages(
    model_dir: str | Path,
    devices: Sequence[torch.device | str],
    *,
    max_pixels: int | None = None,
    max_batch_size: int | None = None,
    settings: AccelerationSettings | None = None,
) -> list[TrimapStage | MattingStage]:
    """Load both networks of a model folder, each onto its own device.

    Args:
        model_dir: folder with the two checkpoints (see `weights`), or the networks exported from them (see `exported`).
        devices: the first stage's device and the second's; one alone serves both.
        max_pixels: most pixels matted at their own size; 0 is no limit, None the device type's default.
        max_batch_size: most pictures in a batch of either stage; None is the device type's default.
        settings: number format, layout, graphs, compilation; None is what the environment says.

    Returns:
        The two stages, in the order of the data.

    Raises:
        CheckpointError: a checkpoint is missing or does not fit.
        ModelError: a network cannot be compiled or captured, which the settings ask for; or an exported one not be loaded.
    """
    first, second = torch.device(devices[0]), torch.device(devices[-1])
    draws = load_exported_trimap_network(model_dir, first) or load_trimap_network(model_dir)
    mattes = load_exported_matting_network(model_dir, second) or load_matting_network(model_dir)
    return [
        TrimapStage(draws, first, max_batch_size, settings),
        MattingStage(mattes, second, max_pixels, max_batch_size, settings),
    ]


def working_size(size: tuple[int, ...], max_pixels: int) -> tuple[int, int]:
    """Choose the height and width at which a picture is matted.

    Args:
        size: the picture's height and width.
        max_pixels: most pixels the network may see, padding included; 0 is no limit.

    Returns:
        The picture's own size where that fits; else one in its proportions, in multiples of 8. A strip a few
        pixels wide, which padding would make many times larger, loses its proportions instead.
    """
    height, width = size
    step = SIZE_MULTIPLE
    if not max_pixels or (height + -height % step) * (width + -width % step) <= max_pixels:
        return height, width
    scale = (max_pixels / (height * width)) ** 0.5
    height = max(step, int(height * scale) // step * step)
    width = max(step, min(int(width * scale), max_pixels // height) // step * step)
    height = max(step, min(height, max_pixels // width) // step * step)
    return height, width


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad [N, C, H, W] at the bottom and right by reflection, until H and W are multiples; any H and W."""
    for dim in (2, 3):
        length = x.shape[dim]
        if length % multiple:
            # By index, as torch's own reflection refuses to pad by more than there is.
            period = max(2 * (length - 1), 1)
            index = torch.arange(length + -length % multiple, device=x.device) % period
            x = x.index_select(dim, torch.minimum(index, period - index).clamp(max=length - 1))
    return x


def _channels_first(image: Tensor) -> Tensor:
    """Uint8 [H, W, 3] to float [1, 3, H, W] in [0, 1]."""
    return image.permute(2, 0, 1)[None].float() / 255


def network_input(image: Tensor) -> Tensor:
    """Uint8 [H, W, 3] to U²-Net's input, float [1, 3, 320, 320]; proportions are lost, as in its training."""
    small = _resize(_channels_first(image), (TRIMAP_SIZE, TRIMAP_SIZE), antialias=True)
    # Its training divided every picture by its brightest value; a black one is left black.
    return normalise(small / small.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6))


def _trimap_from_saliency(logits: Tensor) -> Tensor:
    saliency = logits[0].sigmoid()
    low, high = saliency.amin(), saliency.amax()
    stretched = (saliency - low) / (high - low).clamp(min=1e-6)
    return trimaps.make_trimap(_to_bytes(stretched))


def _resize(x: Tensor, size: Sequence[int], *, antialias: bool = False) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False, antialias=antialias)


def _to_bytes(x: Tensor) -> Tensor:
    """[0, 1] to uint8, rounded."""
    return (x * 255).round().clamp(0, 255).to(torch.uint8)
