PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# A CPU build of torch where there is one; `make TORCH=torch` takes what pip prefers for this machine.
TORCH ?= torch==2.13.0
DEMO_DIR ?= runs/demo
# Stamps: what the commands need, and what the tests and the linter need besides.
RUNS = $(VENV)/runs
DEVELOPS = $(VENV)/develops

.PHONY: demo demo-pixels test lint format docs audit bench clean

demo: $(RUNS)
	$(BIN)/smt-hf demo --output_dir $(DEMO_DIR) --overwrite

demo-pixels: $(RUNS)
	$(BIN)/pip install --quiet -e '.[pixels]'
	$(BIN)/smt-hf demo --pixels --output_dir runs/digits --overwrite

test: $(DEVELOPS)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: $(DEVELOPS)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache && $(BIN)/mypy

format: $(DEVELOPS)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# Known vulnerabilities in what the package needs, its extras included.
audit: $(DEVELOPS)
	$(BIN)/pip-audit --skip-editable

# A site in site/, which opens from a file too; a broken link or reference fails.
docs: $(DEVELOPS)
	COLUMNS=88 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(RUNS)
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf $(VENV) runs site

$(RUNS): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e '.[plot]'
	touch $(RUNS)

$(DEVELOPS): $(RUNS)
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $(DEVELOPS)
