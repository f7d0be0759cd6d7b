"""Objects as the toolkits send them: JSON, CSV, npy, npz."""

from __future__ import annotations

import io
import json
from typing import Any

from multigpu_inference import content_type as types

ENCODED = (types.JSON, types.CSV, types.NPY, types.NPZ)


def encode(value: Any, content_type: str, *, indent: int | None = None) -> bytes:
    """An object in one of the types of `ENCODED`; JSON where it is another.

    Args:
        value: Anything that JSON knows, arrays, tensors; for npz a dict of arrays, or one.
        content_type: Which.
        indent: Of JSON.

    Raises:
        TypeError, ValueError: where it cannot be.
    """
    if content_type not in (types.CSV, types.NPY, types.NPZ):
        return json.dumps(value, default=_as_lists, indent=indent).encode()
    import numpy as np

    stream = io.BytesIO()
    if content_type == types.CSV:
        np.savetxt(stream, _as_arrays(value), delimiter=",", fmt="%s")
    elif content_type == types.NPY:
        np.save(stream, _as_arrays(value), allow_pickle=False)
    else:
        arrays = value if isinstance(value, dict) else {"arr_0": value}
        np.savez(stream, allow_pickle=False, **{str(name): _as_arrays(array) for name, array in arrays.items()})
    return stream.getvalue()


def _as_lists(value: Any) -> Any:
    """What JSON does not know: arrays and their numbers, tensors."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def _as_arrays(value: Any) -> Any:
    """An array, also of tensors."""
    import numpy as np

    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
