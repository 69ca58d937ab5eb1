# Two commands for everybody: `make quickstart` and `make test`. Each makes .venv, installs what it needs and does its job.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test test-all check format clean

quickstart: .venv/core
	$(BIN)/privolve run examples/digits/dpiti.toml

test: .venv/dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PYTEST)

# The slow tests too: long statistics, many kills, every mutant.
test-all: .venv/dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not gpu and not network" $(PYTEST)

check: .venv/dev build/types/privolve
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 0 tests/test_packaging.py

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "privolve needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3 ..."; exit 2; }
	$(PYTHON) -m venv .venv

.venv/core: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/dev: .venv/core
	$(INSTALL) --editable '.[dev]'
	# Its dependency torchvision has no CPU build; the feature network that we load from it does without.
	$(INSTALL) --no-deps torch-fidelity
	touch $@

# Pyright cannot follow the import hook of an editable install, but it can follow a link.
build/types/privolve:
	mkdir -p build/types
	ln -s ../.. build/types/privolve
