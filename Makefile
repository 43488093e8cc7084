# Everything a newcomer needs: `make demo` and `make test` set themselves up.
# Only Python 3.11 and make have to be there; the rest is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SDK_STAMP := .venvs/.installed
PYTEST_ARGS ?=
# Most tests wait for processes that they started; two at a time halve the run.
WORKERS ?= 2
KEEP ?= 0

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup system fmt check test soak bench demo clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# torch first and pinned: resolved as somebody's dependency it could be a build
# that brings gigabytes of CUDA along.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(SDK_STAMP): tools/sdk_environments.py
	$(PYTHON) tools/sdk_environments.py
	@touch $@

setup: $(STAMP) ## Create .venv and install everything into it

system: ## Install the system packages that the tests use (Chromium)
	@$(PYTHON) tools/system_packages.py

fmt: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(STAMP) ## Lint, types, import order
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_order.py

test: $(STAMP) $(SDK_STAMP) system ## Run the tests
	$(BIN)/python -m pytest -m "not soak" -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

soak: $(STAMP) $(SDK_STAMP) system ## Run the long tests
	$(BIN)/python -m pytest -m soak --timeout 3600 $(PYTEST_ARGS)

bench: $(STAMP) ## Run the benchmarks; each prints its ratios
	$(BIN)/python -m benchmarks

demo: $(STAMP) ## Train, pull, export, serve, predict, promote: the whole road
	@$(BIN)/python -m demo $(if $(filter-out 0,$(KEEP)),--keep)

clean: ## Remove environments and caches
	rm -rf $(VENV) .venvs .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
