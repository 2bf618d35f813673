PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test learning check bench docs clean
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

learning: setup  ## tests of what is learned, once more with the arithmetic of other processors
	ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(BIN)/python -m pytest --numprocesses 2 -m learning
	ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(BIN)/python -m pytest --numprocesses 2 -m learning

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
