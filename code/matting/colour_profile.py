"""Colours as the photo's ICC profile means them, brought to sRGB, which the networks and every browser take pixels for.

Runs in the pool workers. A profile comes from strangers: one that is broken, or belongs to other colours than the
photo's, is ignored, as a browser does.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4_000_000  # those of printing machines have up to 3 MB
_KEPT = 16  # transforms of this process; a service sees the same few profiles again and again
_GREYS_APART = 2  # of 255: what rounding makes of a profile that is sRGB by another name

_kept: OrderedDict[tuple[bytes, str], ImageCms.ImageCmsTransform | None] = OrderedDict()
_lock = threading.Lock()


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Bring a picture to sRGB.

    Args:
        image: mode RGB, L or CMYK.
        profile: its ICC profile; None or an unusable one: its colours are taken as they are.

    Returns:
        Mode RGB.
    """
    transform = _transform(profile, image.mode) if profile and len(profile) <= MAX_PROFILE_BYTES else None
    return image.convert("RGB") if transform is None else transform.apply(image)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB, kept for the next picture with it; None where there is nothing to do or nothing can be done."""
    key = (hashlib.sha256(profile).digest(), mode)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    made = _make(profile, mode)
    with _lock:
        _kept[key] = made
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return made


def _make(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        srgb, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.PERCEPTUAL
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, mode, "RGB", intent)
        sample = _sample(mode)
        before, after = np.asarray(sample.convert("RGB"), np.int16), np.asarray(transform.apply(sample), np.int16)
    except Exception:  # broken, or of another colour space than the mode's; the library's class for it is not its only one
        return None
    changes = mode == "CMYK" or int(np.abs(before - after).max()) > _GREYS_APART
    return transform if changes else None


def _sample(mode: str) -> Image.Image:
    """Colours from all over a mode's space."""
    steps = np.arange(0, 256, 17).astype(np.uint8)
    bands = np.stack(np.meshgrid(*[steps] * Image.getmodebands(mode)), axis=-1)
    return Image.frombytes(mode, (len(steps), bands[..., 0].size // len(steps)), bands.tobytes())
