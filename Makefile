PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench docs clean
.DEFAULT_GOAL := help

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(BIN)/.ready  ## a virtual environment with everything, as it was tested

$(BIN)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "newcomer needs Python 3.11 or newer; set PYTHON=python3.x"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,check]'
	@touch $@

demo: setup  ## watch it meet new classes and new items; writes runs/demo/report.html
	$(BIN)/newcomer demo

test: setup  ## all tests
	$(BIN)/python -m pytest --numprocesses 2

check: setup  ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## every benchmark; figures into benchmarks/figures.jsonl
	$(BIN)/python benchmarks/all.py

docs: setup  ## rewrite the tables in README and docs from the records
	$(BIN)/python tools/write_tables.py

clean:  ## remove the environment and caches, not runs or data
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
