# make quickstart · make test · make help. Everything runs in $(VENV), which is made where needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= auto

DISTRIBUTIONS := hub registry twinkle_core $(wildcard plugins/twinkle-plugin-*)
PROJECTS := pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(DISTRIBUTIONS))
SOURCES := $(addsuffix /src,$(DISTRIBUTIONS))
EDITABLE := -e hub[hf,ms] -e registry -e twinkle_core \
	$(addprefix -e ,$(filter-out %-tiny,$(filter plugins/%,$(DISTRIBUTIONS)))) -e plugins/twinkle-plugin-tiny[quickstart]

.DEFAULT_GOAL := help
.PHONY: help quickstart install dev test test-slow test-gpu unit lint format bench docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

quickstart: install ## Fine-tune a small real model: the environment is made, then `twinkle quickstart` runs
	$(BIN)/twinkle quickstart

install: $(VENV)/.installed ## Make the environment and install every distribution in it

dev: $(VENV)/.dev ## The same, with the tools for tests and linting

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Twinkle needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(PROJECTS)
	$(PIP) install -q -U "pip>=25.1"
	$(PIP) install -q -c constraints.txt hatchling editables
	@echo "Installing Twinkle into $(VENV) (the first time takes a minute or two: PyTorch, Transformers, PEFT) …"
	$(PIP) install -q --no-build-isolation -c constraints.txt $(EDITABLE)
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install -q -c constraints.txt --group dev
	@touch $@

test: lint unit ## Lint, types, import rules and all tests but the slow ones

unit: dev
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not gpu"

test-slow: dev ## The tests that take longer: whole installs, whole quick starts
	$(BIN)/python -m pytest -m slow

test-gpu: dev ## The tests that need an accelerator
	$(BIN)/python -m pytest -m gpu

lint: dev ## Ruff, mypy and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

format: dev ## Format and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: dev ## Run every benchmark; each prints ratios, both sides measured in one run
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/sft_step.py
	$(BIN)/python benchmarks/load.py

docs: dev ## Execute every snippet in README and docs
	$(BIN)/python -m pytest tests/test_docs.py

clean: ## Remove the environment, caches and builds
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
