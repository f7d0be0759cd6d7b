"""What `predict_fn` returns: of a matte only what the answer needs, so that nothing else is copied from the device."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from matting.accept import ALPHA, CUTOUT, OUTPUTS, TRIMAP
from matting.options import Options
from matting.photo import Photo
from matting.pipeline import Matte
from matting.save import Save


@dataclass(frozen=True, eq=False)
class Prediction:
    """A photo's result, made on the last stage's device and read on the CPU.

    Attributes:
        alpha: Uint8 [H, W]; None where no output needs it, as the other two.
        foreground: Uint8 [H, W, 3], RGB.
        trimap: Uint8 [H, W] of 0, 128 and 255.
        options: What is made of it.
        size: Height and width of the answer; those of the tensors, or larger where the photo was decoded coarser.
        save: What is stored, if anything.
    """

    alpha: Tensor | None
    foreground: Tensor | None
    trimap: Tensor | None
    options: Options
    size: tuple[int, int]
    save: Save | None = None

    @classmethod
    def of(cls, matte: Matte, photo: Photo) -> Prediction:
        """Keep what the photo's outputs need; all of it where they are not known yet."""
        outputs = photo.options.outputs or OUTPUTS
        return cls(
            alpha=matte.alpha if ALPHA in outputs or CUTOUT in outputs else None,
            foreground=matte.foreground if CUTOUT in outputs else None,
            trimap=matte.trimap if TRIMAP in outputs else None,
            options=photo.options,
            size=photo.size,
            save=photo.save,
        )
