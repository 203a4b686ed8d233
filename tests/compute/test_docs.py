"""The reference page names everything, and importing stays light. (`tests/test_docs.py` runs the blocks.)"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from asyncflow import compute

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_public_name_is_on_the_reference_page():
    """What is exported is documented, but for the records that functions return."""
    text = (DOCS / "reference/compute.md").read_text(encoding="utf-8")
    records = {f"{n}Context" for n in ("Attention", "BatchNorm", "Dropout", "LayerNorm")}
    records |= {"ComputeStatistics", "BatchSizeRecord", "Layer", "Optimizer"}
    missing = {n for n in compute.__all__ if not re.search(rf"\b{n}\b", text)} - records
    missing = {n for n in missing if not n.endswith("_with_grad")}
    assert not missing


def test_import_stays_light():
    """Importing compute loads no pandas, numba, SciPy, matplotlib or torch."""
    heavy = ["pandas", "numba", "scipy", "matplotlib", "torch"]
    code = f"import sys, asyncflow.compute; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=DOCS.parent, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
