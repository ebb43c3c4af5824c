# Everything runs in .venv in this checkout; each target builds what it needs. `make help` lists the targets.

PYTHON ?= python3
CLANG ?= clang
VENV := .venv
BIN := $(VENV)/bin
# Without the native modules, which are built in place.
PIP := KAA_BUILD=none $(BIN)/python -m pip install --quiet --disable-pip-version-check
# For all Pythons that are supported; without the address of an index.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url
NATIVE := $(shell find gateway ext bench -name '*.pyx' -o -name '*.pxd') native.py setup.py

.DEFAULT_GOAL := help
.PHONY: help setup build build-debug build-asan run test test-slow test-failed test-debug test-asan fuzz fuzz-native test-deploy test-page reasons docs lock audit sbom image lint bench peers mqttjs profile annotate wheel wheels clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## Make .venv with all that running, testing and developing needs

$(VENV)/.installed: $(VENV)/.running
	$(PIP) --editable '.[dev,test,lint,build,fuzz]' --editable './bench[compare,locust]'
	@touch $@

# What running and building need, which is what a first `make run` waits for.
$(VENV)/.running: pyproject.toml
	PYTHON=$(PYTHON) scripts/requirements build
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable '.[dev,build]'
	@touch $@

build: .make/release ## Build the native modules in place

build-debug: setup .make/debug ## Build them with bounds checks, assertions and debug information

build-asan: setup .make/asan ## Build them for AddressSanitizer and UndefinedBehaviorSanitizer

# A first `make run` waits for the gateway alone, without the bench.
.make/gateway: $(NATIVE) $(VENV)/.running
	@if ls .make 2>/dev/null | grep -qvxE 'gateway|release'; then find gateway ext bench -name '*.so' -delete; rm -rf .make; fi
	@mkdir -p .make
	KAA_NATIVE="gateway ext" $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

# A build of another kind looks up to date by its time stamps, and is not.
.make/%: $(NATIVE) $(VENV)/.running
	@if [ $* != release ] || ls .make 2>/dev/null | grep -qvxE 'gateway|release'; then find gateway ext bench -name '*.so' -delete; rm -rf .make; fi
	@mkdir -p .make
	KAA_BUILD=$* $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

.make/fuzz: export CC := $(CLANG)
.make/fuzz: export LDSHARED := $(CLANG) -shared

run: .make/gateway ## Start NATS, the gateway and the reference extensions here; Ctrl-C stops them
	$(BIN)/kaa-gateway dev $(ARGS)

# Most tests wait for processes and sockets, so five at a time suit two processors. Files run in the order of their
# names: pytest-xdist would begin with those of many tests, and end with one file of few that take a minute each.
PYTEST := $(BIN)/python -m pytest --numprocesses 5 --dist loadfile --no-loadscope-reorder

test: setup build ## Run all tests but the slow ones (ARGS for pytest)
	PYTHON=$(PYTHON) scripts/requirements test
	$(PYTEST) -m 'not slow' $(ARGS)

test-slow: setup build peers ## Run the tests that take minutes or measure: soak, comparison, cluster, long fuzz
	PYTHON=$(PYTHON) scripts/requirements all
	$(BIN)/python -m pytest -m slow --timeout 600 $(ARGS)

test-failed: ## Run the tests that have failed last again, one after the other
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none --timeout 600 $(ARGS)

test-debug: build-debug ## Run the same tests on native modules built with bounds checks and assertions
	PYTHON=$(PYTHON) scripts/requirements test
	$(PYTEST) -m 'not slow' $(ARGS)

# Each process writes its reports to a file, those that tests start too; the target fails if there is one.
# Locust switches stacks behind AddressSanitizer's back. The simulator and the comparison count on keeping up with the
# clock, which is too fast for them here; memory that a process has freed stays its own for a while, so that growth says
# nothing. Peer amqtt calls crypt(3) by passlib, which the sanitizer's own crypt cannot find.
# A command that starts without an environment has no runtime of the sanitizers. Python counts only the blocks of its own
# allocator, which is not in use here.
REPORTS := build/sanitizer
test-asan: build-asan ## Run the same tests under AddressSanitizer and UndefinedBehaviorSanitizer, which end a process at its first error
	PYTHON=$(PYTHON) scripts/requirements test
	rm -rf $(REPORTS)
	mkdir -p $(REPORTS)
	ASAN_OPTIONS=detect_leaks=0:log_path=$(CURDIR)/$(REPORTS)/process \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:log_path=$(CURDIR)/$(REPORTS)/process PYTHONMALLOC=malloc \
	SANITIZERS="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" PYTHONPATH=$(CURDIR)/tests/support/sanitizers \
	$(PYTEST) --timeout 1200 -m 'not slow' \
	--ignore tests/e2e/bench/test_locust.py --ignore tests/e2e/bench/test_sim_run.py --ignore tests/e2e/bench/test_sim_credentials.py --ignore tests/e2e/bench/test_comparison.py \
	--deselect tests/e2e/test_fleet.py::test_commands_without_a_file \
	--deselect tests/fuzz/test_fuzz_mqtt_session.py::test_damaged_sessions \
	--deselect tests/e2e/test_nats_limits.py::test_memory_stays_under_its_bound_however_long_nats_is_away \
	--deselect tests/unit/app/test_garbage.py::test_a_million_garbage_objects_are_too_many \
	--deselect tests/security/test_http_bodies.py::test_many_bodies_of_nobody_cost_no_memory \
	--deselect 'tests/e2e/bench/test_measure.py::test_a_peer_does_the_same_work[amqtt]' $(ARGS); \
	status=$$?; if cat $(REPORTS)/* 2>/dev/null; then exit 1; fi; exit $$status

fuzz: setup .make/fuzz ## Fuzz decoders and sessions, guided by coverage; needs clang (ARGS='--help' for targets and time)
	$(BIN)/python -m tests.fuzz $(ARGS)

fuzz-native: setup build ## Fuzz decoders without the interpreter in the loop, and print what is reached; needs clang, gcov (ARGS='--help')
	$(BIN)/python -m tests.fuzz.native $(ARGS)

test-deploy: $(VENV)/.deploy build ## Check Dockerfile, Helm chart, compose file, alert rules and dashboard (needs promtool)
	$(BIN)/python -m pytest deploy/tests $(ARGS)

# The time limit of a test ends the process, and prints where each thread is: an exception may be lost in a task.
test-page: setup build ## Look at the live page, the demo page and a report in a headless Chromium (apt-get install chromium)
	$(BIN)/python -m pytest -p tests.conftest --timeout-method thread deploy/page $(ARGS)

reasons: ## Copy the explanations of docs/reasons.md to where the live page finds them
	$(BIN)/python scripts/reasons.py

docs: $(VENV)/.docs ## Write the documentation as a site to build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lock: $(VENV)/.supply ## Choose the newest allowed version of each dependency of the image, and write it down with its hashes
	$(LOCK) --extra bridge --extra rest --extra tracing pyproject.toml -o deploy/locks/run.txt
	$(LOCK) deploy/locks/build.in -o deploy/locks/build.txt

audit: $(VENV)/.supply ## Ask the advisory database about the versions of the image
	$(BIN)/pip-audit --disable-pip --require-hashes -r deploy/locks/run.txt -r deploy/locks/build.txt

sbom: $(VENV)/.supply ## Write a list of what the image has (CycloneDX) to build/sbom.json
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements deploy/locks/run.txt --pyproject pyproject.toml --of JSON -o build/sbom.json

image: ## Build the image's stages in chroots and start the result (root and debootstrap, some minutes)
	$(PYTHON) deploy/tests/image.py build/image

$(VENV)/.deploy: $(VENV)/.installed
	$(PIP) --editable '.[deploy]'
	@touch $@

$(VENV)/.supply: $(VENV)/.installed
	$(PIP) --editable '.[supply]'
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	@touch $@

lint: setup build ## Ruff, mypy, cython-lint, the schema of the workflow file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint --max-line-length 120 gateway ext bench
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: setup build peers ## The gateway beside its peers that are installed, in one table (ARGS for kaa-bench compare)
	$(BIN)/kaa-bench compare $(ARGS)

peers: setup $(VENV)/peers/.installed ## Install the peer whose dependencies need an environment of their own

$(VENV)/peers/.installed: bench/kaa_bench/peers/requirements.txt
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

mqttjs: $(VENV)/mqttjs/.installed ## Install MQTT.js, which a test runs (needs npm)

$(VENV)/mqttjs/.installed: tests/support/mqttjs/package.json $(VENV)/.running
	mkdir -p $(@D)
	cp $< $(@D)
	npm install --prefix $(@D) --no-audit --no-fund --silent
	@touch $@

profile: setup build ## Print instructions per message by function, under valgrind (ARGS as for the bench: --rows coap)
	$(BIN)/python -m kaa_bench.compare.profiling $(ARGS)

annotate: setup ## Print which functions on a message's way call Python, and in how many lines (ARGS: .pyx files)
	$(BIN)/python -m kaa_bench.compare.annotation $(ARGS)

wheel: $(VENV)/.running ## Build the wheels of the gateway and of the bench into dist/
	rm -rf build/release/lib* bench/build/release/lib*
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist . ./bench

wheels: $(VENV)/.running ## Build a wheel for each CPython that is here, 3.11 to 3.14, and try each without a compiler
	$(BIN)/python scripts/wheels.py

clean: ## Remove .venv and everything built
	rm -rf $(VENV) .make .pytest_cache build dist *.egg-info
	find gateway ext bench -name '*.so' -delete
