"""Arrays as bytes, without pickles and without times of day: equal arrays, equal bytes."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

_NAME = re.compile(r"[A-Za-z_]\w*(/\w+(\.\w+)*)*", re.ASCII)
"""`histogram`, or `weights/` and the name of a parameter, as in `weights/blocks.0.bias`."""


def npy(array: np.ndarray) -> bytes:
    """Byte by byte what `numpy.save` writes. Raises ValueError for objects."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
    return buffer.getvalue()


def npz(arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> bytes:
    """An `.npz` of the arrays, sorted by name."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, allowZip64=True, compresslevel=1) as archive:
        for name in sorted(arrays):
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy(arrays[name]), method, 1)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def released(outputs: Mapping[str, np.ndarray]) -> bytes:
    """What a mechanism gave, as bytes to keep. Raises where it is not made of named arrays of numbers."""
    if not outputs:
        raise ValueError("a release has at least one array")
    for name, array in outputs.items():
        if not _NAME.fullmatch(name) or np.asarray(array).dtype.kind not in "biuf":
            raise TypeError("a release is made of named arrays of numbers")
    return npz(outputs)


def described(content: bytes) -> dict[str, Any]:
    """Type, shape and the SHA-256 of each array's .npy file, so that a published file can be found in the chain."""
    return {
        name: {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": hashlib.sha256(npy(array)).hexdigest()}
        for name, array in unpacked(content).items()
    }
