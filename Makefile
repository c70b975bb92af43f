# One target each; `make train` and `make test` set everything up from nothing. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
WORKERS ?= 2
TORCH_INDEX ?=
BENCH ?= startup

.DEFAULT_GOAL := help
.PHONY: help train test check torture lint types bench clean force

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\n%s\n%s\n%s\n%s\n' \
	  '  ARGS="..."       passed on: make train ARGS="model=llama_tiny", make test ARGS="-k layers"' \
	  '  PYTHON=...       the Python that makes $(VENV), 3.11 or newer: make train PYTHON=python3.11' \
	  '  TORCH_INDEX=URL  take torch from that package index, to choose its CPU or CUDA build' \
	  '  WORKERS=2        processes that share the tests; WORKERS=0 runs them in one'

train: $(STAMP)  ## train a small language model: lmexp train $(ARGS)
	@$(BIN)/lmexp train $(ARGS)

test: $(STAMP)  ## the default tests
	@$(PYTEST) $(ARGS)

check: $(STAMP)  ## all that CI runs: lint, types, then every test, with coverage
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	$(call step,tests,$(PYTEST) --cov --cov-report=term:skip-covered $(ARGS))
	$(call step,slow tests,$(PYTEST) -m "(slow or slurm) and not gpu" $(ARGS))
	@printf '\n== check: all passed\n'

torture: $(STAMP)  ## runs killed and stopped 2,400 times, hours; goes on where it was left: ARGS="signals --cases 9"
	@$(BIN)/python -m tests.torture --journal outputs/torture/journal.jsonl --keep outputs/torture/failed --jobs 2 $(ARGS)

lint: $(STAMP)  ## ruff, its rules and its format
	$(call step,lint,$(BIN)/ruff check .)
	$(call step,format,$(BIN)/ruff format --check .)

types: $(STAMP)  ## mypy --strict on lmexp/
	$(call step,types,$(BIN)/mypy)

bench: $(STAMP)  ## a benchmark of benchmarks/: make bench BENCH=startup ARGS="--rounds 3"
	$(call step,benchmarks/$(BENCH).py,$(BIN)/python -m benchmarks.$(BENCH) $(ARGS))

clean:  ## remove what make and the tests made; outputs/ stays
	rm -rf $(VENV) dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './outputs/*' -prune -exec rm -rf {} +

# Made anew when the requirements change, or when another TORCH_INDEX is asked for.
ifneq ($(TORCH_INDEX),)
ifneq ($(TORCH_INDEX),$(shell cat $(STAMP) 2>/dev/null))
$(STAMP): force
endif
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: $(PYTHON) is not Python 3.11 or newer; choose one that is: make PYTHON=python3.11 ...' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo 'error: $(PYTHON) lacks the modules venv and ensurepip; on Debian and Ubuntu: apt install python3-venv' >&2; \
	  exit 2; }
	@echo '== setting up $(VENV) (once; torch is large)'
	@rm -f $@
	@$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),@$(PIP_INSTALL) --no-deps --force-reinstall --index-url '$(TORCH_INDEX)' torch)
	@$(PIP_INSTALL) -e '.[dev]'
	@echo '$(TORCH_INDEX)' > $@

# The variables hold for pip's isolated builds too, which -c would not reach.
PIP_INSTALL = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check

# A module's tests stay in one process, each with one thread: two that fight for cores are slower than one.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# $(call step,name,command): says which step runs, and which one failed.
define step
@printf '\n== $(1)\n'; $(2) || { code=$$?; printf '\n== FAILED: $(1)\n' >&2; exit $$code; }
endef
