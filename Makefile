# Everything runs in .venv in this checkout; each target builds what it needs. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(shell find gateway bench -name '*.pyx' -o -name '*.pxd') setup.py

.DEFAULT_GOAL := help
.PHONY: help setup build build-debug run test test-debug lint bench peers profile wheel clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## Make .venv with all that running, testing and developing needs

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench,locust,test,lint,build]'
	@touch $@

build: setup .make/release ## Build the native modules in place

# A build of the other kind looks up to date by its time stamps, and is not.
.make/release: $(NATIVE) $(VENV)/.installed
	@if [ -e .make/debug ]; then find gateway bench -name '*.so' -delete; fi
	@rm -rf .make && mkdir -p .make
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

build-debug: setup .make/debug ## Build them with bounds checks, assertions and debug information

.make/debug: $(NATIVE) $(VENV)/.installed
	@if [ ! -e .make/debug ]; then find gateway bench -name '*.so' -delete; fi
	@rm -rf .make && mkdir -p .make
	KAA_BUILD=debug $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

run: build ## Start NATS, the gateway and the reference extensions here; Ctrl-C stops them
	$(BIN)/kaa-gateway dev $(ARGS)

test: build peers ## Run the whole test suite (ARGS for pytest)
	$(BIN)/python -m pytest $(ARGS)

test-debug: build-debug peers ## Run it on native modules built with bounds checks and assertions
	$(BIN)/python -m pytest $(ARGS)

lint: build ## Ruff, mypy, cython-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint --max-line-length 120 gateway bench

bench: build peers ## The gateway beside its peers that are installed, in one table (ARGS for kaa-bench compare)
	$(BIN)/kaa-bench compare $(ARGS)

peers: setup $(VENV)/peers/.installed ## Install the peer whose dependencies need an environment of their own

$(VENV)/peers/.installed: bench/peers/requirements.txt
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

profile: build ## Print instructions per message by function, under valgrind (ARGS as for the bench: --rows coap)
	$(BIN)/python -m bench.profiling $(ARGS)

wheel: setup ## Build a wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove .venv and everything built
	rm -rf $(VENV) .make build dist *.egg-info
	find gateway bench -name '*.so' -delete
