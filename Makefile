# All tasks of developers and CI. `make` without a target lists them.
# The eight lock files in requirements/ pin every distribution with its hashes. `make lock` writes them.
#   runtime.txt  production, newest versions          build.txt   setuptools, which installs and packages the code
#   client.txt   clients/linkage                      dev.txt     all of these, and the tests and checks
#   oldest.txt   the lowest versions that both        node.txt    Node for `make callers`, if none is installed
#                pyproject.toml allow                 mutants.txt mutmut for `make mutants`
#   bench.txt    peers and profiler of `make bench`
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1

# `make PYTHON=…` selects the interpreter of .venv, and PYTHON_OLDEST=… that of .venv-oldest.
PYTHON ?= $(firstword $(shell tools/pythons python3.13 python3.12 python3.11 python3))
PYTHON_OLDEST ?= $(firstword $(shell tools/pythons $(PYTHONS)))
PYTHONS = python3.11 python3.12 python3.13 python3 $(PYTHON)
PYENV_PYTHONS = $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.*/bin/python)
UV_VERSION := 0.13.9
BIN := .venv/bin
OLDEST := .venv-oldest/bin
LOCKED := install --quiet --require-hashes
EDITABLE := install --quiet --no-index --no-deps --no-build-isolation --editable . --editable clients/linkage
PROJECTS := pyproject.toml clients/linkage/pyproject.toml
# The tests of a file run in one process: some share a server. Many tests wait, so there are more processes than the two
# cores of the target machine. tests/conftest.py orders the files.
PARALLEL := --numprocesses=4 --dist=loadfile --no-loadscope-reorder
# Arguments for pytest, in place of the usual ones: make test ARGS='-k replay -x'
ARGS ?=

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r name does; do \
	    printf '  make %-12s %s\n' "$$name" "$$does"; done

# -- environments: created once, updated when a lock or pyproject.toml changes

setup: .venv/.stamp-dev .venv-oldest/.stamp ## Create .venv (newest versions) and .venv-oldest (lowest allowed versions)

.venv/bin/python:
	@tools/venv .venv "$(PYTHON)"

.venv-oldest/bin/python:
	@tools/venv .venv-oldest "$(PYTHON_OLDEST)"

RUNTIME := -r requirements/build.txt -r requirements/runtime.txt -r requirements/client.txt

.venv/.stamp-runtime: requirements/runtime.txt requirements/client.txt requirements/build.txt $(PROJECTS) | .venv/bin/python
	@echo "Installing requirements/{runtime,client}.txt, the gateway and its client into .venv ..."
	@$(BIN)/python -m pip $(LOCKED) $(RUNTIME)
	@$(BIN)/python -m pip $(EDITABLE)
	@touch $@

.venv/.stamp-dev: requirements/dev.txt .venv/.stamp-runtime
	@echo "Installing requirements/dev.txt into .venv ..."
	@$(BIN)/python -m pip $(LOCKED) -r requirements/dev.txt
	@touch $@

.venv-oldest/.stamp: requirements/oldest.txt $(PROJECTS) | .venv-oldest/bin/python
	@echo "Installing requirements/oldest.txt, the gateway and its client into .venv-oldest ..."
	@$(OLDEST)/python -m pip $(LOCKED) -r requirements/oldest.txt
	@$(OLDEST)/python -m pip $(EDITABLE)
	@touch $@

# Does nothing if they are installed.
peers: ## Install grpcurl, grpc-health-probe, kustomize and compose-go into .tools/bin
	@tools/peers

node:
	@tools/node

# -- running

demo: .venv/.stamp-runtime ## Start the sandbox and the gateway, and call it; ONCE=1 stops after the calls
	@$(BIN)/alipayhk-gateway demo$(if $(ONCE), --once)

# -- checks

# Tests of the other ways to find faults: they need a minute of their own, and hardly depend on the rest.
PROOF := chaos fuzz simulation

# Coverage doubles the time of many tests. CI measures it: make test COVERAGE=1
test: setup peers ## Run the tests on the newest versions; COVERAGE=1 also measures coverage
	$(BIN)/python -m pytest $(or $(ARGS),$(PARALLEL) $(addprefix --ignore=tests/,$(PROOF)) \
	    $(if $(COVERAGE),--cov --cov-report=term --cov-fail-under=95))

proof: setup ## Test that the simulation, the fuzzer and the process chaos notice faults
	$(BIN)/python -m pytest $(or $(ARGS),$(PARALLEL) $(addprefix tests/,$(PROOF)))

test-oldest: setup ## Run the tests on the lowest allowed versions, except those of external tools and slow ones
	$(OLDEST)/python -m pytest $(or $(ARGS),$(PARALLEL) $(addprefix --ignore=tests/,chaos cost deploy docs e2e/test_floods.py e2e/test_listener_limits.py e2e/test_reload.py fuzz load monitoring peers postgres scenarios) --ignore-glob='tests/ledger/test_postgres_*')

lint: .venv/.stamp-dev ## Check style, types, layers, protos and language
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking protos --against protos/baseline.binpb
	$(BIN)/python -m pytest --quiet tests/test_prose.py

# Needs a JDK with Maven, which .ci/run installs. Go and Node come from PyPI if they are not on the PATH.
callers: export PATH := $(CURDIR)/.tools/node-venv/bin:$(CURDIR)/.tools/go-venv/bin:$(PATH)
callers: setup peers node ## Run each language's client with its own toolchain while the gateway is killed and restarted
	$(BIN)/python -m pytest -m callers $(or $(ARGS),$(PARALLEL) --numprocesses=2 tests/callers tests/docs/test_commands.py)

browser: setup ## Test the load tester's report in Chromium, in light and in dark
	$(BIN)/python -m pytest -m browser $(or $(ARGS),tests/load)

image: setup peers ## Build the image from Debian's packages, and test it in a container; needs root, podman, runc and mmdebstrap
	@tools/image
	$(BIN)/python -m pytest -m image $(or $(ARGS),tests/deploy)

# make simulate SEEDS=100000, SEED=7 (its trace), MUTANTS=all, LEDGER=postgres; docs/architecture.md explains it.
simulate: .venv/.stamp-dev ## Simulate gateways, faults and AlipayHK in virtual time for 2,000 seeds, and check what callers got
	$(BIN)/python -m tests.simulation.simulate --seeds $(or $(SEEDS),2000) --first $(or $(FIRST),0) \
	    $(if $(SEED),--seed $(SEED)) $(if $(MUTANTS),--mutants $(MUTANTS)) $(if $(LEDGER),--ledger $(LEDGER))

# make chaos LEDGER=postgres KILLS=50 FAULTS=kill,stop SEED=7 MUTANT=dedup; docs/architecture.md explains the report.
# make chaos MUTANTS=all, or MUTANTS=dedup,undo: run each of these mutants until it is noticed.
chaos: .venv/.stamp-dev ## Kill gateways 500 times under load and other faults, and check the callers' outcomes
	$(BIN)/python -m tests.chaos.$(if $(MUTANTS),mutant_table --mutants $(MUTANTS),chaos) \
	    --ledger $(or $(LEDGER),sqlite) --kills $(or $(KILLS),500) --rate $(or $(RATE),200) \
	    --gateways $(or $(GATEWAYS),2) --workers $(or $(WORKERS),3) --seed $(or $(SEED),0) \
	    $(if $(FAULTS),--faults $(FAULTS)) $(if $(MUTANT),--mutant $(MUTANT))

soak: setup ## Cancel calls for two hours, and check that memory and descriptors stay flat; MINUTES=10
	SOAK_MINUTES=$(or $(MINUTES),120) $(BIN)/python -m pytest -m full tests/scenarios/test_soak.py

# make fuzz MINUTES=60 TARGETS='key_file times'; docs/architecture.md explains the report.
fuzz: .venv/.stamp-dev ## Fuzz everything that reads bytes from outside, for ten minutes
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(TARGETS)

.venv/.stamp-mutants: requirements/mutants.txt .venv/.stamp-dev
	@echo "Installing requirements/mutants.txt into .venv ..."
	@$(BIN)/python -m pip $(LOCKED) -r requirements/mutants.txt
	@touch $@

# make mutants ONLY=service/delivery/flight.py SAMPLE=200 SEED=1 JOBS=2 FRESH=1; CONTRIBUTING.md explains the report.
mutants: .venv/.stamp-mutants ## Change the code in one place at a time, and list the changes that no test detects
	$(BIN)/python -m tests.mutants.run --only "$(ONLY)" --sample $(or $(SAMPLE),0) --seed $(or $(SEED),0) \
	    --jobs $(or $(JOBS),1) $(if $(FRESH),--fresh)

GHZ := github.com/bojand/ghz/cmd/ghz@v0.121.0

.tools/bin/ghz:
	GOBIN=$(CURDIR)/.tools/bin go install $(GHZ)

.venv/.stamp-bench: requirements/bench.txt .venv/.stamp-dev
	@echo "Installing requirements/bench.txt into .venv ..."
	@$(BIN)/python -m pip $(LOCKED) -r requirements/bench.txt
	@touch $@

# Go and Node come from PyPI if they are not on the PATH.
bench bench-profile bench-programs: export PATH := $(CURDIR)/.tools/node-venv/bin:$(CURDIR)/.tools/go-venv/bin:$(PATH)

bench-programs: .venv/.stamp-bench peers node
	cd bench && go test ./traffic && go build -o ../build/bench/ ./traffic ./peers/go
	npm --prefix bench/peers/node ci --silent

# make bench ARGS='--quick', or ARGS='--only sqlite,naive --rounds 3'; docs/performance.md explains the tables.
bench: bench-programs .tools/bin/ghz ## Compare the gateway with what users would write instead; measure the ledger, the load tester and overload
	$(BIN)/python -m bench.compare $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m bench.profiling --results)
	$(if $(ARGS),,$(BIN)/python -m bench.ledger --results)
	$(if $(ARGS),,$(BIN)/python -m bench.load)
	$(if $(ARGS),,$(BIN)/python -m bench.overload)

bench-profile: bench-programs ## Write a flame graph of the gateway under load, and its CPU time by package
	$(BIN)/python -m bench.profiling $(ARGS)

# Not part of CI: it uses the newest grpcio, which pyproject.toml may exclude because of a bug.
canary: ## Report whether the newest grpcio survives hostile HTTP/2, and can be allowed
	@test -x .venv-canary/bin/python || tools/venv .venv-canary "$(PYTHON)"
	@.venv-canary/bin/python -m pip $(LOCKED) $(RUNTIME) -r requirements/dev.txt
	@.venv-canary/bin/python -m pip $(EDITABLE)
	@tools/canary

full: export HYPOTHESIS_PROFILE = full
full: lint test proof simulate callers browser image chaos fuzz .tools/bin/ghz ## Run all slow checks: lowest allowed versions on every installed Python, deep fuzzing
	$(MAKE) simulate chaos LEDGER=postgres
	$(BIN)/python -m pytest -m full
	RELOADS=50 $(BIN)/python -m pytest tests/e2e/test_reload.py
	@set -e; for python in $$(tools/pythons $(PYTHONS) $(PYENV_PYTHONS)); do \
	    venv=.venv-full/$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    test -x $$venv/bin/python || tools/venv $$venv $$python; \
	    $$venv/bin/python -m pip $(LOCKED) -r requirements/oldest.txt; \
	    $$venv/bin/python -m pip $(EDITABLE); \
	    $$venv/bin/python -m pytest $(or $(ARGS),$(PARALLEL) --ignore=tests/fuzz --ignore=tests/cost); \
	done

# -- generated files that are committed

generate: .venv-oldest/.stamp ## Regenerate gen/ from protos/
	$(OLDEST)/python tools/generate.py

COMPILE = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-emit-index-url --no-emit-find-links --no-header $(if $(UPGRADE),--upgrade)

lock: ## Rewrite requirements/ from pyproject.toml; UPGRADE=1 takes the newest versions
	@test -x .venv-lock/bin/python || tools/venv .venv-lock "$(PYTHON)"
	@.venv-lock/bin/python -m pip install --quiet uv==$(UV_VERSION)
	$(COMPILE) pyproject.toml --extra otel --output-file requirements/runtime.txt
	$(COMPILE) --group build --output-file requirements/build.txt
	$(COMPILE) --group node --output-file requirements/node.txt
	$(COMPILE) clients/linkage/pyproject.toml --extra load \
	    --constraint requirements/runtime.txt --constraint requirements/build.txt \
	    --output-file requirements/client.txt
	$(COMPILE) $(PROJECTS) --all-extras --group build --group test --group lint --group fuzz \
	    --constraint requirements/runtime.txt --constraint requirements/client.txt \
	    --constraint requirements/build.txt --output-file requirements/dev.txt
	$(COMPILE) --group mutants --constraint requirements/dev.txt --output-file requirements/mutants.txt
	$(COMPILE) --group bench --constraint requirements/dev.txt --output-file requirements/bench.txt
	$(COMPILE) $(PROJECTS) --all-extras --group build --group test --group generate \
	    --resolution lowest-direct --output-file requirements/oldest.txt

# `buf breaking` compares the protos with the last release.
baseline: .venv/.stamp-dev ## Rewrite protos/baseline.binpb; only at a release
	$(BIN)/buf build protos --output protos/baseline.binpb

SDIST = -c 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])' $(CURDIR)/dist > /dev/null

build: .venv/.stamp-runtime ## Build sdists of the gateway and the client, and wheels from them, into dist/
	rm -rf dist
	git rev-parse --short=12 HEAD | tee service/COMMIT clients/linkage/alipayhk_linkage/COMMIT > /dev/null
	$(BIN)/python $(SDIST)
	cd clients/linkage && $(CURDIR)/$(BIN)/python $(SDIST)
	rm service/COMMIT clients/linkage/alipayhk_linkage/COMMIT
	$(BIN)/python -m pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz
	@ls dist

stubs: .venv/.stamp-dev ## Write the protos, descriptor set and retry policy for other languages into build/stubs/
	rm -rf build/stubs
	mkdir -p build/stubs
	$(BIN)/buf build protos --as-file-descriptor-set --output build/stubs/alipayhk-linkage-v1.binpb
	cp -R protos/alipayhk clients/retry_service_config*.json build/stubs/
	@find build/stubs -type f | sort

clean: ## Remove everything that the targets created and that is not committed
	rm -rf .venv .venv-canary .venv-oldest .venv-lock .venv-full .tools build dist *.egg-info .coverage .coverage.* \
	    .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup peers node demo test proof test-oldest lint browser callers image simulate chaos soak fuzz mutants bench \
    bench-profile bench-programs canary full generate lock baseline build stubs clean
