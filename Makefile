PYTHON ?= python3
BIN := .venv/bin

# Tests start dozens of processes, each of which would compile the sources anew where this is set, as in many containers.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-all learning mutation check bench tables docs package clean
.DEFAULT_GOAL := help

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(BIN)/.ready  ## a virtual environment with everything, as it was tested

$(BIN)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "newcomer needs Python 3.11 or newer; set PYTHON=python3.x"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,check,docs]'
	@touch $@

demo: setup  ## watch it meet new classes and new items; writes runs/demo/report.html
	$(BIN)/newcomer demo

test: setup  ## all tests but the slow ones
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-all: setup  ## all tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m ''

learning: setup  ## tests of what is learned, once more with the arithmetic of other processors
	ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(BIN)/python -m pytest --numprocesses 2 -m learning
	ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(BIN)/python -m pytest --numprocesses 2 -m learning

mutation: setup  ## changes of nn/ and items/adaptation/ that no test notices; half an hour, goes on where it was stopped
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutation]'
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/mutmut run

check: setup  ## format, lint, types, imports, docs without a warning
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zensical build --clean --strict

bench: setup  ## every benchmark; results into benchmarks/measurements.jsonl
	$(BIN)/python benchmarks/all.py

tables: setup  ## rewrite the tables in README and docs from the records, and the notebooks from the tutorials
	$(BIN)/python tools/write_tables.py
	$(BIN)/python tools/write_notebooks.py

docs: setup  ## the documentation as a site, with the API reference and search; site/index.html
	$(BIN)/zensical build --clean --strict

package: setup  ## wheel and sdist into dist/; the wheel, installed in a clean environment, runs the demo
	rm -rf dist build/package
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv build/package
	build/package/bin/python -m pip install --quiet --constraint constraints.txt "$$(echo dist/*.whl)[all]"
	cd build/package && bin/newcomer demo

clean:  ## remove the environment and caches, not runs or data
	rm -rf .venv site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache mutants
