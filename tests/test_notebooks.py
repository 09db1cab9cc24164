"""The notebooks run on the sample archive, keep what they claim, and are fit to be read on a forge."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
MOST_BYTES = 400_000
MOST_SECONDS = 300  # that no notebook hangs; a busy machine takes several times what an idle one does

# run where nothing of the checkout is written to, as nbdev's own test command does
RUN = """
import json, sys
from pathlib import Path
from nbdev.test import test_nb
print(json.dumps({path.name: test_nb(path, profile=False) for path in sorted(Path("nbs").glob("*.ipynb"))}))
"""


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, sample_archive):
    """{notebook: (whether it ran, seconds)}, and the folder they ran in."""
    pytest.importorskip("nbdev")
    desk = tmp_path_factory.mktemp("desk")
    for name in ("nbs", "data"):
        shutil.copytree(ROOT / name, desk / name)
    for name in ("pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / name, desk / name)
    (desk / "outputs").mkdir()
    # `tests` for the local Earth Engine
    paths = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    settings = str(tmp_path_factory.mktemp("settings"))  # of whoever runs the tests, none
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_CONFIG_HOME": settings, "IPYTHONDIR": settings}
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=desk, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr, desk


def test_there_are_notebooks_and_all_are_run(runs):
    assert len(NOTEBOOKS) >= 5
    assert set(runs[0]) == {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_keeps_its_claims(runs, path):
    ran, seconds = runs[0][path.name]
    assert ran, runs[1]
    assert seconds < MOST_SECONDS


def test_they_write_into_outputs_alone(runs):
    desk = runs[2]
    mine = {"nbs", "data", "outputs", "pyproject.toml", "settings.ini"}
    assert {p.name for p in desk.iterdir()} == mine
    kept = [{p.name for p in (folder / "nbs").iterdir()} - {"__pycache__"} for folder in (desk, ROOT)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_asks_one_question_and_asserts(path):
    first = "".join(cells(path, "markdown")[0]["source"])
    assert first.startswith("# ")
    assert re.search(r"\*\*[^*]+\?\*\*", first), "the first cell asks the question"
    code = "\n".join("".join(cell["source"]) for cell in cells(path, "code"))
    assert code.count("assert") >= 3
    assert "#| export" not in code  # nothing is exported from notebooks
    assert "def " not in code or code.count("def ") <= 1  # no logic lives in them


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_are_there_small_and_clean(path):
    assert path.stat().st_size < MOST_BYTES
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert set(notebook["metadata"]) <= {"kernelspec"}
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert outputs, "run it and store its outputs: make notebooks"
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(cell["execution_count"] is None and cell["metadata"] == {} for cell in cells(path, "code"))


def test_links_between_them_hold():
    for path in NOTEBOOKS:
        text = "".join("".join(cell["source"]) for cell in cells(path, "markdown"))
        for target in re.findall(r"\]\(([^):]+)\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
