# Needs Python 3.11 or newer and make, nothing else: everything is installed into .venv, once.
#
# The stamp's name holds a checksum of this folder's path and of pyproject.toml. It is stale when one of them
# has changed, and only then is pip called: with a fresh stamp no target here touches the network.

PYTHON ?= python3
PY     := .venv/bin/python
STAMP  := .venv/.installed-$(shell { pwd -P; cat pyproject.toml; } | cksum | cut -d' ' -f1)

# bytecode is kept, whatever this shell says: else each process of the tests compiles the package anew
unexport PYTHONDONTWRITEBYTECODE

# a file's tests stay in one process: they share fixtures; tests/conftest.py puts the files that take longest first
PYTEST_OPTIONS ?= --numprocesses=auto --dist=loadfile --no-loadscope-reorder $(if $(COVERAGE),--cov=gee_polygons --cov-report=term:skip-covered)

.PHONY: help demo test test-slow fuzz lint format hooks map notebooks pictures bench soak clean
.DEFAULT_GOAL := help

help:  ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' Makefile

demo: $(STAMP)  ## From nothing to a table, pictures and a report in outputs/, on a synthetic sample archive
	@$(PY) -m gee_polygons demo --out outputs

test: $(STAMP)  ## Run the tests on all cores; COVERAGE=1 says which lines they run
	@$(PY) -m pytest -q $(PYTEST_OPTIONS)

test-slow: $(STAMP)  ## Run the tests of more than ten seconds, which `make test` leaves out
	@$(PY) -m pytest -q $(PYTEST_OPTIONS) -m "slow and not ee and not network"

fuzz: $(STAMP)  ## Read 10,000 damaged files of each kind (an hour); SEED=7 damages others
	@$(PY) tests/fuzz.py --seed $(or $(SEED),0)

lint: $(STAMP)  ## ruff (rules and format), mypy, deno for JavaScript, CSS, HTML; changes nothing
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/deno lint --quiet
	@.venv/bin/deno fmt --check --quiet

format: $(STAMP)  ## Let ruff and deno rewrite what they can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
	@.venv/bin/deno fmt --quiet

hooks: $(STAMP)  ## Have git run the linters before each commit
	@.venv/bin/pre-commit install

map: $(STAMP)  ## Write the map of the modules into CONTRIBUTING.md
	@$(PY) docs/house.py

notebooks: $(STAMP)  ## Run the notebooks and store their outputs
	@cd nbs && for notebook in *.ipynb; do \
		../$(PY) -c "import sys; from nbdev.test import test_nb; \
			sys.exit(not test_nb('$$notebook', save=True, profile=False)[0])" || exit 1; \
	done
	@.venv/bin/nbdev-clean --fname nbs

pictures: $(STAMP)  ## Run the README and remake its pictures; the report's with chromium and chromedriver
	@$(PY) docs/pictures.py

bench: $(STAMP)  ## Run the benchmarks (many minutes); writes benchmarks/RESULTS.md
	@$(PY) -m benchmarks

soak: $(STAMP)  ## Stop commands at random moments, run them again and compare (15 minutes)
	@$(PY) -m benchmarks.soak

clean:  ## Remove what was made, except .venv
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find outputs -mindepth 1 ! -name .gitkeep -delete
	@find gee_polygons tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, '$(PYTHON)' is not that; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "installing into .venv (once; some minutes)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@rm -f .venv/.installed-*
	@touch $@
