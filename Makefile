# Python, pip and make are all that a fresh machine needs: `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint bench-optimizers bench-traps bench-validators clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[cpu,dev]'
	touch $@

demo: $(VENV)/.installed
	mkdir -p demo
	$(BIN)/graphwright optimize models/minilm.toml -o demo/minilm.onnx --bench --force
	$(BIN)/graphwright quantize models/minilm.toml -o demo/minilm.int8.onnx --bench --force

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-all: $(VENV)/.installed lint
	$(BIN)/python -m pytest -n 2

.bench-venv/.installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/python -m pip install -q --upgrade pip
	.bench-venv/bin/python -m pip install -q -r benchmarks/requirements.txt -e '.[cpu,models,guests]'
	touch $@

bench-optimizers: $(VENV)/.installed .bench-venv/.installed
	.bench-venv/bin/python benchmarks/optimizers.py
	.bench-venv/bin/python benchmarks/tables.py README.md

bench-traps: $(VENV)/.installed .bench-venv/.installed
	.bench-venv/bin/python benchmarks/traps.py
	.bench-venv/bin/python benchmarks/tables.py README.md

bench-validators: $(VENV)/.installed .bench-venv/.installed
	.bench-venv/bin/python benchmarks/mutants.py
	.bench-venv/bin/python benchmarks/false_alarms.py
	.bench-venv/bin/python benchmarks/validation.py
	.bench-venv/bin/python benchmarks/tables.py README.md

clean:
	rm -rf $(VENV) .bench-venv demo build *.egg-info
