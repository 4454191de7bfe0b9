# Every target sets up .venv by itself. Another interpreter: `make test PYTHON=python3.12`. More cores: `make test PROCESSES=8`.
PYTHON ?= python3
PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-slow lint docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       train both networks on generated Navier-Stokes data; table and pictures in demo_output/"
	@echo "make test       the test suite with doctests and the code of the documentation"
	@echo "make test-slow  the tests marked slow"
	@echo "make lint       ruff, mypy --strict, import-linter"
	@echo "make docs       build the documentation into site/"
	@echo "make clean      remove .venv and everything that was built"

# The stamp is written last, so a set-up that was interrupted is done again.
$(INSTALLED): pyproject.toml
	@rm -f $(INSTALLED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "multiresnet needs Python 3.10 or newer, but $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev,docs,bench,segmentation,medical,pde,neuralop,diffusion,onnx,sphere]'
	@touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/multiresnet demo --out demo_output

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES)

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site demo_output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find multiresnet benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
