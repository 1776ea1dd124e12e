# Two commands: make demo, make test. Both make .venv, with what constraints.txt pins.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test lint bench clean

demo: .venv/.demo
	$(BIN)/pocketzoo demo

test: .venv/.test lint
	$(BIN)/python -m pytest

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.test
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/registry.py
	$(BIN)/python benchmarks/compress.py
	$(BIN)/python benchmarks/page.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch goes first: with it in place nothing pulls another, larger build of it.
.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) torch
	$(PIP) --editable '.[demo]'
	touch $@

.venv/.test: pyproject.toml constraints.txt examples/efficientnet-lite/pyproject.toml | .venv/bin/python
	$(PIP) torch
	$(PIP) --editable '.[test]'
	$(PIP) ./examples/efficientnet-lite
	touch $@ .venv/.demo

clean:
	rm -rf .venv build *.egg-info pocketzoo-demo
