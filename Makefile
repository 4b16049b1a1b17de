# Every target works as the first command in a fresh checkout: with Python 3.11 or newer and make, the rest is set up here.
# What is installed are the exact versions in constraints/, checked against their hashes; `make pins` renews them.

PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
WORKERS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
STUDY ?=
STUDY_ARGS ?=
UV := $(shell command -v uv 2>/dev/null)

BIN := .venv/bin
# Work is shared by neighbours in a file, so that fixtures and what was traced serve several tests.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
ifdef UV
INSTALL := $(UV) pip install --quiet --python $(BIN)/python
COMPILE := $(UV) pip compile pyproject.toml constraints/build.in --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --no-header
else
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.DEFAULT_GOAL := help
.PHONY: help demo bench reproduce test test-all test-fast lint format docs notebooks wheel check pins clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo DEMO_ARGS=--help        options of the demo"
	@echo "  make reproduce STUDY=variance-snake STUDY_ARGS='--size quick'"
	@echo "  make test PYTEST_ARGS='-k core'   some of the tests"
	@echo "  make test PYTHON=python3.12       another Python (after make clean)"
	@echo "  make test-fast PYTEST_ARGS='--durations=0 --durations-min=5'   what should be marked slow"

demo: .venv/runtime.stamp  ## train a self-tuning agent on Snake, a few minutes on two cores
	$(BIN)/gradweave train quick $(DEMO_ARGS)

test: .venv/dev.stamp  ## run the tests, but for further rows of large tables
	$(PYTEST) -m 'not exhaustive' $(PYTEST_ARGS)

test-all: .venv/dev.stamp  ## run all tests
	$(PYTEST) $(PYTEST_ARGS)

test-fast: .venv/dev.stamp  ## run the tests that are not marked slow
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

lint: .venv/dev.stamp  ## check style, types and which layer imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev.stamp  ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/dev.stamp  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is in site/index.html"

notebooks: .venv/dev.stamp  ## write the tutorials as notebooks, and the page that links them
	$(BIN)/python examples/tutorials/make_notebooks.py

wheel: .venv/dev.stamp  ## build the wheel and use it in a bare environment, on Python 3.11 and the newest one here
	.ci/wheel

check: .venv/dev.stamp  ## everything a change has to pass
	.ci/run

bench: .venv/runtime.stamp  ## measure what meta-gradients cost (an hour or more on one core; BENCH_ARGS=--help)
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

reproduce: .venv/runtime.stamp  ## run a study of experiments/ again (STUDY=NAME; without one, list them)
	PYTHONPATH=experiments $(BIN)/python -m _study.reproduce $(STUDY) $(STUDY_ARGS)

pins:  ## renew constraints/*.txt from pyproject.toml (needs uv)
	@test -n "$(UV)" || { echo "make pins needs uv; install it with 'pip install uv'" >&2; exit 1; }
	$(COMPILE) --extra dev --extra docs --output-file constraints/dev.txt
	$(COMPILE) --constraint constraints/dev.txt --output-file constraints/runtime.txt

clean:  ## remove what make set up and built; runs/ stays
	rm -rf .venv .cache site build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gradweave needs Python 3.11 or newer; $(or $(PYTHON),every python on the PATH) is older, or does not run." >&2; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
ifdef UV
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv || { rm -rf .venv; exit 1; }
else
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
endif

.venv/%.stamp: constraints/%.txt pyproject.toml | .venv/bin/python
	@echo "Installing the packages of $< into .venv (once)"
	$(INSTALL) --require-hashes -r $<
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# The developer's packages include those needed at run time.
ifneq ($(wildcard .venv/dev.stamp),)
.venv/runtime.stamp: .venv/dev.stamp
	@touch $@
endif
