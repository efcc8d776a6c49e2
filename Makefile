# `make demo` and `make test` set up what they need, once: a .venv with the tested versions.
#
#   PYTHON    the Python (>= 3.11) that makes the environment
#   PIP_ARGS  more arguments for pip, e.g. an --extra-index-url with PyTorch builds without CUDA
#             (their address: pytorch.org, Get Started)
#   ARGS      more settings for `vatt demo`: make demo ARGS="--preset demo-shared --out runs/shared"

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/set-up-seconds

.DEFAULT_GOAL := help
.PHONY: help setup openal demo demo-long demo-quick test test-slow lint types check wheel clean

help:
	@echo "make demo       record clips, prepare, pre-train, fine-tune, evaluate, report, index: about 10 minutes on 2 cores"
	@echo "make demo-long  the same with 3 times the training clips and 5 times the steps"
	@echo "make test       the tests, in about 5 minutes on 2 cores"
	@echo "make check      everything CI checks except the demo: tests, slow tests, lint, types"
	@echo "make clean      remove the environment and build outputs (not runs/)"

# The stamp holds how long set-up took; the demo adds it to its own time.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vatt needs Python 3.11 or newer; set PYTHON=..., found: $$($(PYTHON) --version)" >&2; exit 1; }
	@echo "setting up $(VENV) with the tested versions: about a minute" && start=$$(date +%s) && \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/pip install -qq --no-compile --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[demo,search,serve,dev]' && \
	echo $$(($$(date +%s) - start)) > $@ && \
	echo "set up $(VENV) in $$(cat $@) s"

setup: $(STAMP)

# ViZDoom needs this library for sound; without it every recording would be silent.
openal: $(STAMP)
	@$(BIN)/python -c 'import ctypes; ctypes.CDLL("libopenal.so.1")' 2>/dev/null || { \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  start=$$(date +%s); \
	  echo "installing libopenal1 (sound for the demo's recordings)"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends libopenal1 >/dev/null && \
	  echo $$(($$(cat $(STAMP)) + $$(date +%s) - start)) > $(STAMP); \
	else \
	  echo "The demo's recordings need OpenAL for sound. Install it, then run make again:" >&2; \
	  echo "    sudo apt-get install libopenal1      (Debian, Ubuntu; elsewhere the package of openal-soft)" >&2; \
	  exit 1; \
	fi; }

demo: $(STAMP) openal
	@VATT_SETUP_SECONDS=$$(cat $(STAMP)) $(BIN)/vatt demo $(ARGS)

demo-long: $(STAMP) openal
	@VATT_SETUP_SECONDS=$$(cat $(STAMP)) $(BIN)/vatt demo --length long --out runs/demo-long $(ARGS)

demo-quick: $(STAMP) openal
	@VATT_SETUP_SECONDS=$$(cat $(STAMP)) $(BIN)/vatt demo --length quick --out runs/demo-quick $(ARGS)

test: $(STAMP)
	@$(MAKE) --no-print-directory openal || echo "(tests that record are skipped)"
	$(BIN)/pytest

test-slow: $(STAMP)
	@$(BIN)/pip install -qq --no-compile --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[ray,bench,mteb]' 'moto[s3]' flask flask-cors
	@$(MAKE) --no-print-directory openal || echo "(tests that record are skipped)"
	$(BIN)/pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy --strict

check: test test-slow lint types

# A built wheel in an empty environment: nothing it needs may come from this checkout.
wheel: $(STAMP)
	rm -rf dist build
	$(BIN)/python -m build --quiet --wheel --outdir dist .
	$(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/pip install -qq --no-compile --disable-pip-version-check $(PIP_ARGS) -c constraints.txt dist/*.whl
	cd build && wheel-check/bin/vatt --help && wheel-check/bin/vatt demo --help >/dev/null && wheel-check/bin/vatt pretrain --preset tiny --print-config --out run --data.shards none >/dev/null

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
