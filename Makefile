# make demo · make test · make check · make docs · make bench · make reproduce · make notebooks · make parity · make release · make matrix
# Each sets up what it needs in .venv (CPU only). PYTHON=python3.12 chooses another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-slow test-share test-flower check bench parity docs notebooks release matrix matrix-versions matrix-processors reproduce clean
demo: $(VENV)/.installed
	$(BIN)/tna lmc --out runs/demo --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow and not optimized"
	$(BIN)/python -m pytest --optimized -m "optimized and not slow" $$(grep -rl --include='test_*.py' mark.optimized tests)

reproduce: $(VENV)/.installed
	$(BIN)/python -m train all
	$(BIN)/python -m fusion all

# Everything, compiled as users do.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --optimized

# One in SHARE of the slow tests, another choice for each commit.
SHARE ?= 12
test-share: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --optimized -m slow --slow-share=$(SHARE):$$(git rev-parse HEAD)

# Flower in an environment of its own: its pins (rich<15, protobuf<7, ...) exclude those of constraints.txt.
FLOWER := $(VENV)-flower
test-flower: $(FLOWER)/.installed
	$(FLOWER)/bin/python -m pytest tests/tna_jax/flower tests/tna_jax/federated/test_packing.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.project.typed_snippets
	$(BIN)/lint-imports

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

notebooks: $(VENV)/.installed-dev
	$(BIN)/python -m notebooks

release: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# Both ends of what is supported, in versions (make matrix OLDEST=python3.11 NEWEST=python3.13) and in processors: as if it had
# AVX2 or SSE 4.2 only (any x86 takes these flags), and with one core.
OLDEST ?= python3.11
NEWEST ?= python3.13
MATRIX ?= tests/tna_jax
matrix: matrix-versions matrix-processors
matrix-versions:
	$(MAKE) VENV=.venv-oldest PYTHON=$(OLDEST) CONSTRAINTS=constraints-oldest.txt .venv-oldest/.installed-matrix
	.venv-oldest/bin/python -m pytest $(MATRIX) -m "not slow"
	$(MAKE) VENV=.venv-newest PYTHON=$(NEWEST) CONSTRAINTS=constraints-newest.txt .venv-newest/.installed-matrix
	.venv-newest/bin/python -m pytest $(MATRIX) -m "not slow"
matrix-processors: $(VENV)/.installed-dev
	XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=AVX2" $(BIN)/python -m pytest --optimized
	XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=SSE4_2" $(BIN)/python -m pytest --optimized
	taskset -c 0 $(BIN)/python -m pytest -n 1 --optimized $(MATRIX) -m "not slow"

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

parity: $(VENV)/.installed-parity
	$(BIN)/python -m pytest tests/tna_jax/hf/test_parity.py tests/tna_jax/programs/merge/test_model_types.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) -c constraints.txt -e '.[cli]'
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

$(FLOWER)/.installed: pyproject.toml constraints.txt
	test -x $(FLOWER)/bin/python || $(PYTHON) -m venv $(FLOWER)
	grep -v '^rich==' constraints.txt > $(FLOWER)/constraints.txt
	$(FLOWER)/bin/python -m pip --disable-pip-version-check install --quiet -c $(FLOWER)/constraints.txt -e '.[tfds,test-federated]'
	@touch $@

CONSTRAINTS ?= constraints.txt
$(VENV)/.installed-matrix: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(PIP) -c $(CONSTRAINTS) -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) $(FLOWER) .venv-oldest .venv-newest site dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
