"""Every photograph through every filter: a flow repeated for each pair, in turn and then at the same time.

Shows `BatchFlow` and `AsyncParallelBatchFlow` over one base flow, load → "apply_filter" → filter → "save" →
save. Its nodes hand the picture over through `shared`. At the same time that would mix the runs up, so
`isolate=True` gives each run a view of its own, and `offload=True` puts the plain `exec`s on threads. The
photographs are the two that come with scikit-learn; the files of both modes are equal byte for byte.

    pip install scikit-learn pillow
    python examples/images_and_filters.py [output folder] [times enlarged, 3 by default]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images

from asyncflow import AsyncParallelBatchFlow, BatchFlow, Flow, Node

FILTERS = ("grayscale", "blur", "sepia")
SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], dtype=np.float32)


def grayscale(pixels: np.ndarray) -> np.ndarray:
    """Luma by ITU-R BT.601, in all three channels."""
    luma = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.repeat(np.rint(luma).astype(np.uint8)[..., None], 3, axis=2)


def blur(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4)))


def sepia(pixels: np.ndarray) -> np.ndarray:
    return np.rint(np.minimum(pixels @ SEPIA.T, 255)).astype(np.uint8)


class LoadImage(Node):
    def prep(self, shared: dict[str, Any]) -> tuple[Path, int]:
        return self.params["image"], shared["enlarge"]

    def exec(self, asked: tuple[Path, int]) -> np.ndarray:
        path, enlarge = asked
        with Image.open(path) as image:
            size = (image.width * enlarge, image.height * enlarge)
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))

    def post(self, shared: dict[str, Any], prep_res: Any, pixels: np.ndarray) -> str:
        shared["pixels"] = pixels
        return "apply_filter"


class ApplyFilter(Node):
    def prep(self, shared: dict[str, Any]) -> tuple[np.ndarray, str]:
        return shared["pixels"], self.params["filter"]

    def exec(self, asked: tuple[np.ndarray, str]) -> np.ndarray:
        pixels, name = asked
        return {"grayscale": grayscale, "blur": blur, "sepia": sepia}[name](pixels)

    def post(self, shared: dict[str, Any], prep_res: Any, pixels: np.ndarray) -> str:
        shared["pixels"] = pixels
        return "save"


class SaveImage(Node):
    def prep(self, shared: dict[str, Any]) -> tuple[np.ndarray, Path]:
        name = f"{self.params['image'].stem}_{self.params['filter']}.png"
        return shared["pixels"], shared["output"] / name

    def exec(self, asked: tuple[np.ndarray, Path]) -> Path:
        pixels, path = asked
        Image.fromarray(pixels).save(path, compress_level=1)
        return path

    def post(self, shared: dict[str, Any], prep_res: Any, path: Path) -> None:
        shared["files"].append(path)  # one list for all runs: a view is shallow
        del shared["pixels"]  # the views stay until every run has ended


def one_image() -> Flow:
    """The base flow, for one photograph and one filter."""
    load, apply, save = LoadImage(), ApplyFilter(), SaveImage()
    load - "apply_filter" >> apply
    apply - "save" >> save
    return Flow(start=load)


class EveryImageEveryFilter(BatchFlow):
    """`shared`: reads "images", "filters", "output" and "enlarge", adds paths to "files"."""

    def prep(self, shared: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"image": image, "filter": name} for image in shared["images"] for name in shared["filters"]]


class AllAtOnce(EveryImageEveryFilter, AsyncParallelBatchFlow):
    """The same pairs, up to as many at a time as `concurrency` says."""

    isolate = True
    offload = True


def main(output: Path | None = None, enlarge: int = 3, concurrency: int = 2) -> dict[str, Any]:
    if output is None:
        with tempfile.TemporaryDirectory() as folder:
            return main(Path(folder), enlarge, concurrency)
    photographs = [Path(name) for name in load_sample_images().filenames]
    runs: dict[str, tuple[dict[str, bytes], float]] = {}
    for mode in ("in_turn", "at_once"):
        folder = Path(output) / mode
        folder.mkdir(parents=True, exist_ok=True)
        shared: dict[str, Any] = {
            "images": photographs,
            "filters": FILTERS,
            "output": folder,
            "enlarge": enlarge,
            "files": [],
        }
        began = time.perf_counter()
        if mode == "in_turn":
            EveryImageEveryFilter(start=one_image()).run(shared)
        else:
            asyncio.run(AllAtOnce(start=one_image(), concurrency=concurrency).run_async(shared))
        seconds = time.perf_counter() - began
        runs[mode] = {path.name: path.read_bytes() for path in sorted(shared["files"])}, seconds
        print(f"{mode.replace('_', ' ')}: {len(shared['files'])} pictures in {seconds:.2f} s, in {folder}")
    equal = runs["in_turn"][0] == runs["at_once"][0]
    print(f"equal byte for byte: {'yes' if equal else 'NO'}")
    return {
        "files": list(runs["in_turn"][0]),
        "equal": equal,
        "seconds_in_turn": runs["in_turn"][1],
        "seconds_at_once": runs["at_once"][1],
    }


if __name__ == "__main__":
    given = sys.argv[1:]
    done = main(Path(given[0]) if given else None, int(given[1]) if len(given) > 1 else 3)
    sys.exit(0 if done["equal"] else 1)
