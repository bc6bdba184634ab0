# Everything runs in .venv, which the first command makes from the pinned constraints.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install serve test coverage check comparison format package

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: .venv/installed ## Install the project and its tools into .venv

serve: .venv/installed ## Start a local cluster of one edge and one cloud node (Ctrl-C stops it)
	$(BIN)/xpi serve

test: .venv/installed ## Run all tests, by two workers
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

coverage: .venv/installed ## Run all tests and tell which branches they leave out
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

check: .venv/installed ## Check format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

comparison: .venv/installed ## Compare Xpi with its peers on a testbed (root; hours)
	$(BIN)/python -m benchmarks.comparison

format: .venv/installed ## Format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

package: .venv/installed ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build
