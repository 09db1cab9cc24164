"""The notebooks run from top to bottom; their asserts are what they claim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("nbs/1[01]_*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path, sample_archive):
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert sum("assert " in "".join(c["source"]) for c in cells) >= 4
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in cells:
        exec(compile("".join(cell["source"]), path.name, "exec"), names)


def test_notebooks_stay_small():
    assert len(NOTEBOOKS) == 2
    assert all(p.stat().st_size < 60_000 for p in NOTEBOOKS)
