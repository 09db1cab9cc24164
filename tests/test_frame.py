"""The project's frame: what importing costs, which way imports point, and that everything written down runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gee_polygons

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gee_polygons"
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages([str(PACKAGE)], prefix="gee_polygons.")
    if m.name != "gee_polygons.__main__"  # runs the command
)
HEAVY = ("ee", "rasterio", "numba", "matplotlib", "zarr")
IMPORT_SECONDS = 0.3

# The house, bottom to top: a module imports from its own room and from rooms below, inside functions as well.
RANKS = (
    ("errors", "progress", "version"),
    ("moved", "core", "export", "indices"),
    ("layers", "periods", "store"),
    ("alphaearth",),
    ("network", "embeddings"),
    ("zonal",),
    ("site",),
    ("tables", "reduction"),
    ("sources",),
    ("datasets", "collection"),
    ("costs",),
    ("extract",),
    ("bulk",),
    ("visualize", "audit", "change", "probe"),
    ("recovery", "charts"),
    ("report",),
    ("warmup",),
    ("cli",),
    ("__main__",),
)
# Methods of sites hand over to parts built on top of sites, inside the methods.
MAY_IMPORT_UPWARDS = {"gee_polygons.site.verbs"}


# --- what importing costs ---


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_importing_takes_less_than_0_3_s_of_cpu():  # which other processes don't lengthen much
    code = "from time import process_time as t; a = t(); import gee_polygons; print(t() - a)"
    assert min(float(run_python(code)) for _ in range(5)) < IMPORT_SECONDS


@pytest.mark.parametrize("module", ["gee_polygons", "gee_polygons.cli.main"])
def test_importing_brings_in_nothing_heavy(module):
    found = run_python(f"import sys, {module}; print(*sys.modules)").split()
    assert not {*HEAVY, "pandas", "geopandas", "pyarrow"} & set(found)


def test_public_names_are_found_at_first_use():
    for name in gee_polygons.__all__:
        assert getattr(gee_polygons, name) is not None
        assert name in dir(gee_polygons)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = gee_polygons.no_such_name


def test_there_is_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert gee_polygons.__version__ == version("gee_polygons") == project["version"]
    assert f"\n## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "version" not in (ROOT / "settings.ini").read_text(encoding="utf-8").split("[DEFAULT]")[1]


# --- which way imports point ---


def unit_of(module: str) -> str:
    """The first name below the package: what has a rank."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports_of(module: str) -> dict[str, set[str]]:
    """Modules of the package that `module` imports: when it is imported ("module"), when a function runs ("function"),
    or for annotations alone ("types")."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: dict[str, set[str]] = {"module": set(), "function": set(), "types": set()}

    def visit(node: ast.AST, when: str) -> None:
        if isinstance(node, ast.Import):
            found[when].update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute"
            origin = node.module or ""
            found[when].update(f"{origin}.{a.name}" if f"{origin}.{a.name}" in MODULES else origin for a in node.names)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            when = "function"
        is_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, "types" if is_types else when)

    visit(ast.parse(path.read_text(encoding="utf-8")), "module")
    return {when: {n for n in names if n.split(".")[0] == "gee_polygons"} - {module} for when, names in found.items()}


IMPORTS = {module: imports_of(module) for module in MODULES}


def test_every_module_has_a_rank():
    ranked = {unit for rank in RANKS for unit in rank}
    assert {unit_of(m) for m in MODULES} - ranked == set()


def test_imports_point_down():
    rank = {unit: i for i, units in enumerate(RANKS) for unit in units}
    wrong = [
        f"{module} imports {name} ({when})"
        for module in MODULES
        if module not in MAY_IMPORT_UPWARDS and unit_of(module)  # the package itself names what is public
        for when, names in IMPORTS[module].items()
        for name in names
        if not unit_of(name) or rank[unit_of(name)] > rank[unit_of(module)]
    ]
    assert wrong == []


def test_only_methods_of_sites_import_upwards():
    rank = {unit: i for i, units in enumerate(RANKS) for unit in units}
    for module in MAY_IMPORT_UPWARDS:
        upwards = {
            when: {n for n in names if rank[unit_of(n)] > rank["site"]} for when, names in IMPORTS[module].items()
        }
        assert upwards["module"] == upwards["types"] == set()
        assert upwards["function"]


def test_imports_have_no_circle():
    graph = {
        module: IMPORTS[module]["module"] | (set() if module in MAY_IMPORT_UPWARDS else IMPORTS[module]["function"])
        for module in MODULES
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path, module])}"
        if module not in done:
            for name in sorted(graph.get(module, ())):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_check_of_imports_sees_what_it_should():
    # the tests above are worth what `imports_of` finds
    assert "gee_polygons.errors" in IMPORTS["gee_polygons.layers"]["module"]
    assert "gee_polygons.extract" in IMPORTS["gee_polygons.site.verbs"]["function"]
    assert any(name.startswith("gee_polygons.site") for name in IMPORTS["gee_polygons.tables"]["types"])


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for extra, names in project["optional-dependencies"].items() if extra != "dev" for name in names]
    declared = {re.split(r"[<>=\[ ]", name)[0].lower() for name in project["dependencies"] + extras}
    distributions = packages_distributions()
    undeclared = set()
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        # what is missing without harm stands in `try: import ... except ImportError: raise DependencyError`
        guarded = {id(n) for t in nodes if isinstance(t, ast.Try) for line in t.body for n in ast.walk(line)}
        for node in (n for n in nodes if id(n) not in guarded):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for top in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"gee_polygons"}:
                found = {name.lower().replace("_", "-") for name in distributions.get(top, [top])}
                undeclared |= {f"{path.name} imports {top}"} if not found & declared else set()
    assert undeclared == set()


# --- everything written down runs ---


@pytest.fixture
def at_a_desk(tmp_path, monkeypatch, sample_archive, sample_sites):
    """The current folder looks like a checkout: `data/sample_sites.geojson` and an empty `outputs`."""
    for name in ("data", "outputs"):
        (tmp_path / name).mkdir()
    sample_sites.to_geodataframe().to_file(tmp_path / "data" / "sample_sites.geojson", driver="GeoJSON")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, request):
    module = importlib.import_module(name)
    tests = [t for t in doctest.DocTestFinder(exclude_empty=True).find(module) if t.examples]
    if any("sample" in e.source for t in tests for e in t.examples):
        request.getfixturevalue("at_a_desk")
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in tests:
        report: list[str] = []
        runner.run(test, out=report.append)
        assert not runner.failures, "".join(report)


def readme_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


PICTURES = runpy.run_path(str(ROOT / "docs" / "pictures.py"))


def test_readme_runs_in_order_and_makes_its_pictures(at_a_desk, capsys, monkeypatch):
    shutil.copy(ROOT / "data" / "sample_labels.geojson", at_a_desk / "data")
    PICTURES["run_readme"]()
    assert len(readme_blocks("python")) >= 4
    said = capsys.readouterr().out
    for promised in ("Site(id='hole', start_year=2019)", "(7, 64)", "balanced accuracy 0.90"):  # in comments
        assert promised in said
    pairs = PICTURES["pairs"](at_a_desk / "outputs")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"docs/images/([a-z_]+\.[a-z]+)", text))
    # the demonstration's test compares the strip; a browser takes the report's picture
    assert named - {shown.name for shown, _ in pairs} == {"strip.jpg", "report.png"}
    for shown, made in pairs:
        with Image.open(shown) as picture:
            before, now = (np.asarray(p.convert("RGB"), int) for p in (picture, PICTURES["on_the_page"](made)))
        assert before.shape == now.shape, f"{shown.name}: run `make pictures`"
        assert np.abs(before - now).mean() < 4, f"{shown.name}: run `make pictures`"


def test_readme_links_to_files_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []
    pictures = [ROOT / t for t in targets if t.endswith((".png", ".gif", ".jpg"))]
    assert pictures
    assert all(p.stat().st_size < 150_000 for p in pictures)


def test_the_map_of_the_code_is_up_to_date():
    house = runpy.run_path(str(ROOT / "docs" / "house.py"))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert text == house["with_map"](text), "run `make map`"
    assert "- **`sources/`**" in text


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", "".join(readme_blocks("sh"))))
    assert {"demo", "test"} <= named <= targets


# --- nothing of one person's machine ---


def project_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [p for p in ROOT.rglob("*") if ".venv" not in p.parts and p.is_file()]  # not a git checkout


def test_no_file_names_a_folder_of_somebodys_machine():
    absolute = re.compile(r"""(?:^|[\s"'(=:])/(?:home|Users|root|work|opt|srv)/\w""", flags=re.MULTILINE)
    found = []
    for path in project_files():
        if (
            path.suffix in {".png", ".gif", ".jpg", ".ttf", ".tif", ".tiff", ".parquet", ".npy", ".npz"}
            or not path.is_file()
        ):
            continue
        for hit in absolute.finditer(path.read_text(encoding="utf-8", errors="replace")):
            found.append(f"{path.relative_to(ROOT)}: {hit.group().strip()}")
    assert found == []


def test_warnings_are_errors_here():
    with pytest.raises(UserWarning, match="seen"):
        warnings.warn("seen", stacklevel=1)
