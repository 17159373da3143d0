PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# A CPU build of torch where there is one; `make TORCH=torch` takes what pip prefers for this machine.
TORCH ?= torch==2.13.0
DEMO_DIR ?= runs/demo
INSTALLED = $(VENV)/installed

.PHONY: demo test lint format bench clean

demo: $(INSTALLED)
	$(BIN)/smt-hf demo --output_dir $(DEMO_DIR) --overwrite

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf $(VENV) runs

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $(INSTALLED)
