"""A training's state in one file: arrays as npy without pickle, everything else as JSON, in a zip.

Nothing in the file is executed when it is read. The file is written beside its place and moved there, so a
crash leaves the old one or the new one, never half of one.
"""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array
from asyncflow.errors import RangeError

_VERSION = 1


def write_checkpoint(path: str | os.PathLike[str], state: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write a JSON state and named arrays."""
    place = Path(path)
    beside = place.with_name(f"{place.name}.{uuid.uuid4().hex}.tmp")
    text = json.dumps({"version": _VERSION, "state": state})
    try:
        with open(beside, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("state.json", text)
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    finally:
        beside.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `write_checkpoint` wrote.

    Raises:
        RangeError: If the file is not a checkpoint of this version.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        whole = json.loads(archive.read("state.json")) if "state.json" in names else {}
        if whole.get("version") != _VERSION:
            raise RangeError(
                f"{os.fspath(path)} must be a checkpoint of version {_VERSION}, got {whole.get('version')!r}"
            )
        arrays = {}
        for name in names:
            if name.endswith(".npy"):
                with archive.open(name) as entry:
                    arrays[name[:-4]] = np.lib.format.read_array(entry, allow_pickle=False)
    return whole["state"], arrays
