# One command a chore, the same for people and CI. Python >= 3.11.4 and make are all it needs.
PYTHON ?= python3
BIN := .venv/bin
export FIRSTLIGHT_DATA ?= $(if $(wildcard ../shared/data),$(abspath ../shared/data),)

.PHONY: demo test check bench bench-all bench-gpu peers soak docs docs-studies clean

demo: .venv/.installed
	$(BIN)/firstlight train

test: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not soak"

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_architecture.py
	@$(BIN)/python scripts/longest.py

bench: .venv/.installed-dev .venv-peers/.installed
	$(BIN)/python -m benchmarks

bench-all: .venv/.installed-dev .venv-peers/.installed
	$(BIN)/python -m benchmarks --all

# Everything that waits for a CUDA GPU: its tests, lines 1 and 2 with and without CUDA graphs, and the course's networks fully trained.
bench-gpu: .venv/.installed-dev
	$(BIN)/pytest tests/gpu
	$(BIN)/python -m benchmarks --gpu

peers: .venv-peers/.installed

soak: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak

docs: .venv/.installed-dev
	$(BIN)/python scripts/make_docs.py

# Carries out all shipped studies that a CPU can, into the folder of runs; what is finished there is not trained again. Hours on one core.
docs-studies: .venv/.installed-dev
	$(BIN)/python scripts/make_studies.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "firstlight needs Python 3.11.4 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The frameworks that the benchmarks measure us against: several GB, with a registry build of torch (benchmarks/requirements.txt says why).
.venv-peers/.installed: benchmarks/requirements.txt .venv/bin/python
	.venv/bin/python -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-peers build *.egg-info
