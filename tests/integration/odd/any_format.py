"""What is odd in the same way in all three formats: colour profiles, shapes, animations, damage."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from integration.odd.jpeg import segment
from integration.odd.photo import (
    ANY,
    BLACK,
    BLUE,
    BROKEN,
    CORNERS,
    FORMATS,
    GREEN,
    MAGICS,
    NO_PICTURE,
    RED,
    SIZE,
    OddPhoto,
    either,
    good,
    refused,
    saved,
)
from integration.odd.png import with_chunks
from unit.code.matting.pictures import cmyk_profile, file_of, grey_profile, png_chunk, rgb_profile, slopes


def profiles() -> Iterator[OddPhoto]:
    swapped = rgb_profile(2.2, swap=True)
    seen = ((6, 6, RED), (42, 6, BLUE), (6, 27, GREEN))
    for format_ in FORMATS:
        name = format_.lower()
        yield good(f"{name}-profile-srgb", saved(format_, icc_profile=rgb_profile(2.2)), apart=12)
        yield good(f"{name}-profile-with-green-and-blue-exchanged", saved(format_, icc_profile=swapped), seen, apart=24)
        for kind, profile in {
            "of-grey": grey_profile(),
            "of-inks": cmyk_profile((1, 2, 3)),
            "garbage": bytes(range(256)) * 4,
            "cut-off": swapped[:200],
            "of-one-byte": b"x",
            "of-600-kb": swapped + bytes(600_000),
            "that-says-it-is-huge": b"\xff\xff\xff\xff" + swapped[4:],
            "with-tags-beyond": swapped[:132] + b"\xff" * 60 + swapped[192:],
            "with-2-32-tags": swapped[:128] + b"\xff\xff\xff\xff" + swapped[132:],
        }.items():
            exchanged = kind in ("of-600-kb", "that-says-it-is-huge")  # it may count, as its beginning is whole
            colours = seen[:1] if exchanged or kind.startswith("with-") else CORNERS
            yield good(f"{name}-profile-{kind}", saved(format_, icc_profile=profile), colours, apart=255 if exchanged else 12)
    grey = saved("PNG", partial(Image.new, "L", SIZE, 55), icc_profile=grey_profile())
    yield good("png-grey-profile", grey, ((6, 6, (128, 128, 128)),))
    grey = saved("PNG", partial(Image.new, "L", SIZE, 55), icc_profile=swapped)
    yield good("png-grey-with-a-colour-profile", grey, ((6, 6, (55, 55, 55)),))
    inks = saved("JPEG", partial(Image.new, "CMYK", SIZE, (0, 0, 0, 128)), icc_profile=cmyk_profile((200, 180, 128)))
    yield good("jpeg-cmyk-profile", inks, ((6, 6, (130, 75, 93)),))
    inks = saved("JPEG", partial(Image.new, "CMYK", SIZE, (0, 255, 255, 0)), icc_profile=swapped)
    yield good("jpeg-cmyk-with-an-rgb-profile", inks, ((6, 6, RED),), apart=12)
    legitimate = np.random.default_rng(5).integers(0, 256, 1_500_000, np.uint8).tobytes()
    # A PNG's profile is compressed, and Pillow inflates no text of a PNG to more than 1 MB: that is what bombs are made of.
    yield refused("png-profile-of-1500-kb", saved("PNG", icc_profile=swapped + legitimate))
    yield good("jpeg-profile-of-1500-kb", saved("JPEG", icc_profile=swapped + legitimate), seen[:1], apart=24)
    yield good("jpeg-profile-with-a-part-missing", lambda: _without_first_profile_part(swapped), apart=12)


def _without_first_profile_part(profile: bytes) -> bytes:
    whole = saved("JPEG", icc_profile=profile + bytes(100_000))()
    start, end = segment(whole, 0xE2)
    return whole[:start] + whole[end:]


def shapes() -> Iterator[OddPhoto]:
    for format_ in FORMATS:
        for size in ((1, 1), (1, 64), (64, 1), (2, 2), (7, 9), (3, 2000), (2000, 3), (16_383, 1)):
            make = saved(format_, partial(Image.new, "RGB", size, RED))
            yield good(f"{format_.lower()}-{size[0]}-x-{size[1]}", make, ((0, 0, RED),), size, apart=12)
    yield good(
        "jpeg-65500-x-1", saved("JPEG", partial(Image.new, "RGB", (65_500, 1), RED)), ((0, 0, RED),), (65_500, 1), apart=12
    )
    yield good("png-1-x-100000", saved("PNG", partial(Image.new, "L", (1, 100_000), 0)), ((0, 0, BLACK),), (1, 100_000))
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    for format_ in ("PNG", "WEBP"):
        make = partial(
            lambda f, **more: saved(f, lambda: frames[0], save_all=True, append_images=frames[1:], **more)(), format_
        )
        yield good(f"{format_.lower()}-animated", make, ((5, 5, RED),), (20, 10))
        for blend in (0, 1) if format_ == "PNG" else ():
            yield good(f"png-animated-blend-{blend}", partial(make, blend=blend, disposal=2), ((5, 5, RED),), (20, 10))
    apart = saved("PNG", lambda: frames[2], save_all=True, append_images=frames[:2], default_image=True)
    yield good("png-animated-with-a-default-image", apart, ((5, 5, BLUE),), (20, 10))
    control = struct.pack(">IIIIIHHBB", 0, 48, 32, 4000, 4000, 1, 1, 0, 0)
    animation = png_chunk(b"acTL", struct.pack(">II", 1, 0)) + png_chunk(b"fcTL", control)
    yield either("png-animated-frame-outside", with_chunks(animation))


def damaged() -> Iterator[OddPhoto]:
    random = np.random.default_rng(11)
    for format_, magic in zip(FORMATS, MAGICS, strict=True):
        whole = file_of(slopes(48, 32), format_)
        for at in sorted(random.choice(np.arange(len(magic), len(whole) - 20), 10, replace=False).tolist()):
            if format_ == "WEBP" and at < 12:  # any of the RIFF family
                yield refused(f"webp-cut-at-{at}", partial(_cut, whole, at), f"{BROKEN}|{NO_PICTURE}")
            else:
                yield refused(f"{format_.lower()}-cut-at-{at}", partial(_cut, whole, at))
        for number in range(12):
            where = random.integers(12, len(whole), 4).tolist()
            flipped = bytearray(whole)
            for at in where:
                flipped[at] ^= int(random.integers(1, 256))
            yield either(f"{format_.lower()}-flipped-{number}", partial(bytes, flipped), ANY)


def _cut(whole: bytes, at: int) -> bytes:
    return whole[:at]
