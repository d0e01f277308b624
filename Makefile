# Every target sets up what it needs from a fresh clone; what is already there is left alone. `make` alone prints this list.
#   make demo     discover the reasoning vectors of the bundled model: runs/demo/report.json and runs/demo/report.html
#   make test     the whole test suite, on the CPU, without network
#   make lint     ruff and pyright, as in review        (make format rewrites files in place)
#   make docs     regenerate the generated pages of docs/
#   make bench    run every benchmark, one JSON line each
#   make clean    forget the environment and the caches; runs/ is kept

VENV      ?= .venv
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.overtone-ready
TRITON    := $(VENV)/.overtone-triton
# The first of these that is at least Python 3.11 makes the environment. Choose another with: make PYTHONS=/path/to/python
PYTHONS   ?= python3.11 python3 python3.12 python3.13
TORCH     ?= torch==2.13.0
PIP_FLAGS ?= --quiet --disable-pip-version-check
# Two processes, one torch thread each (tests/conftest.py): the layout that was fastest on two cores. TEST_JOBS=0 for one process.
TEST_JOBS ?= 2
TEST_ARGS ?=
DEMO_OUT  ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs bench clean

help:
	@sed -n 's/^#   make/  make/p' Makefile

setup: $(STAMP)

# torch goes first and alone: it is the large one, and nothing that follows may choose another version of it.
$(STAMP): pyproject.toml constraints.txt Makefile
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHONS); do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "overtone needs Python 3.11 or newer with venv; tried: $(PYTHONS). Install one, or name it: make PYTHONS=/path/to/python" >&2; exit 2; \
	  fi; \
	  echo "creating $(VENV) with $$found ($$($$found --version))"; \
	  $$found -m venv --clear $(VENV); \
	fi
	@echo "installing $(TORCH), then overtone (once; minutes on a slow line)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt "$(TORCH)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[dev,app]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/overtone discover --out $(DEMO_OUT) --resume

# For the tests of the GPU kernels, which run in its interpreter; a gigabyte, so not part of the set-up of everything else.
$(TRITON): $(STAMP)
	@echo "installing triton (once)"
	@if $(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[kernels]"; then touch $(TRITON); \
	  else echo "triton could not be installed: the tests of the GPU kernels are skipped" >&2; fi

test: $(STAMP) $(TRITON)
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile $(TEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python tools/build_docs.py

bench: $(STAMP)
	@set -e; for file in benchmarks/[a-z]*.py; do \
	  [ -e "$$file" ] || { echo "no benchmarks yet"; break; }; \
	  $(BIN)/python "$$file" --json; \
	done

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
