# The two commands on a fresh machine:
#   make demo   run the main job on data_examples and say where the report is
#   make test   check style, types and imports, and pass the tests
# `make docs` builds the documentation site (build/docs/index.html).
# `make bench` sets methods against each other on simulated heads (docs/choosing-defaults.md).
# `make docker` builds the container image, `make lock` renews the versions in it (docs/container.md).
# Each makes its own virtual environment; both need Python 3.11 to 3.13 and a package index.

ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $$p && break; done)
endif
VENV ?= .venv
DEMO_VENV ?= .venv-demo
DEMO_OUT ?= demo
JOBS ?= 2
BENCH_HEADS ?= build/heads
BENCH_OUT ?= build/bench
BENCH_WORDS ?= --all
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find bids_qsm -type f -not -name '*.py[co]' -not -name '*.nb[ic]')

.PHONY: demo test lint coverage docs bench docker lock sbom audit clean
.DELETE_ON_ERROR:

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/bids-qsm data_examples/bids $(DEMO_OUT) participant -v

# The commands that tests call are those of the environment.
test coverage: export PATH := $(abspath $(BIN)):$(PATH)
# One worker for each job: their own threads would only get in each other's way.
test coverage: export OMP_NUM_THREADS := 1
test coverage: export OPENBLAS_NUM_THREADS := 1
test coverage: export ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS := 1
test coverage: export NUMBA_NUM_THREADS := 2
test coverage: export NUMBA_CACHE_DIR := $(abspath $(VENV))/numba-cache

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --cov \
		--cov-report=term-missing:skip-covered

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Warnings are errors. The pages need no network and no server.
docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "Documentation: $(abspath build/docs/index.html)"

# Heads are simulated once; then, for instance: make bench BENCH_WORDS="--stage inversion --all"
bench: $(VENV)/.installed $(BENCH_HEADS)/dataset_description.json
	$(BIN)/python tests/benchmarks/methods.py $(BENCH_HEADS) --out $(BENCH_OUT) $(BENCH_WORDS)

build/heads/dataset_description.json: | $(VENV)/.installed
	$(BIN)/bids-qsm-phantom build/heads --participants 2 --no-t1w --no-flair

# Site settings of pip and a CA bundle, where they are needed: make docker DOCKER_SECRETS="..."
docker:
	DOCKER_BUILDKIT=1 docker build $(DOCKER_SECRETS) -t bids-qsm .

# The newest versions that pyproject.toml allows, each with its hashes. Needs uv (pip install uv).
lock:
	cd container && uv pip compile --quiet --upgrade $(LOCKED) --extra dask ../pyproject.toml -o requirements.lock
	cd container && uv pip compile --quiet --upgrade $(LOCKED) build-tools.in -o build-tools.lock
LOCKED := --generate-hashes --python-version 3.11 --python-platform linux --no-emit-index-url \
	--custom-compile-command "make lock"

# What is in the image, as the image tells it (CycloneDX JSON).
sbom:
	mkdir -p build
	docker run --rm --network none --entrypoint cat bids-qsm /opt/bids-qsm/sbom.json > build/sbom.json
	@echo "Bill of materials: $(abspath build/sbom.json)"

# Known vulnerabilities of the versions in the image. Needs pip-audit, and a network.
audit:
	pip-audit --strict --require-hashes --disable-pip -r container/requirements.lock
	pip-audit --strict --require-hashes --disable-pip -r container/build-tools.lock

clean:
	rm -rf $(VENV) $(DEMO_VENV) demo build dist *.egg-info .coverage* .pytest_cache .ruff_cache \
		.mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml
	@$(call check_python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

$(DEMO_VENV)/.installed: $(SOURCES)
	@$(call check_python)
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check .
	touch $@

define check_python
test -n "$(PYTHON)" || { echo "make: no Python 3.11, 3.12 or 3.13 with its venv module was found; \
install one (on Debian or Ubuntu: python3 and python3-venv), or name it: make $(MAKECMDGOALS) \
PYTHON=/path/to/python3" >&2; exit 1; }
endef
