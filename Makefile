# make demo · make test · make check · make bench · make parity · make reproduce: each sets up what it needs in .venv (CPU only). PYTHON=python3.12 chooses another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-slow check bench parity reproduce clean
demo: $(VENV)/.installed
	$(BIN)/tna lmc --out runs/demo --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow"

reproduce: $(VENV)/.installed
	$(BIN)/python -m experiments all

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

parity: $(VENV)/.installed-parity
	$(BIN)/python -m pytest tests/train/test_hf_parity.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) -c constraints.txt -e '.[report]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(VENV)/bin/python
	$(PIP) -c constraints.txt -e '.[bench]'
	@touch $@

$(VENV)/.installed-parity: $(VENV)/.installed-dev
	$(PIP) -c constraints.txt -e '.[parity]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
