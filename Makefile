# Needs python3 (3.11 or later, with venv), make and git. `make packages` adds what the full test uses, where it can.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
FARM   := build/farm/snapspec
ROOMS  := model impl conformance
# What `make mutation` mutates, and which of the mutants it runs: each SAMPLE-th.
MUTATED ?= impl model
SAMPLE  ?= 1
LINKS  := $(addprefix $(FARM)/,$(ROOMS))
# Debian package and the program of it that tells whether it is there already, be it from another source.
DEBIAN := containerd:containerd runc:runc btrfs-progs:mkfs.btrfs xfsprogs:mkfs.xfs e2fsprogs:mkfs.ext4 fuse3:fusermount3 busybox-static:busybox chromium:chromium redis-server:redis-server
# Nothing that is installed is removed for these: where Docker's containerd.io is, Debian's containerd would displace it.
APT    := DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends --no-remove

.PHONY: help setup packages check test tests deep lint types proto diagrams examples museum bench mutation clean

help:
	@echo "make check   sets up, then checks the reference on the embedded default"
	@echo "make test    sets up, then lint, types and the tests: about five minutes on two cores"
	@echo "make deep    all tests, the long ones too, with fresh random examples"
	@echo "make bench   measures the model and the reference"
	@echo "make proto   generates the gRPC stubs again"
	@echo "make diagrams  writes the model's diagrams into spec.md"
	@echo "make examples  writes the examples of snapspec explain: about a minute"
	@echo "make museum  tries the checker on the known bugs, and writes its track record: about four minutes"
	@echo "make mutation  runs mutants of impl and model through the kit, for hours: SAMPLE=10 runs each tenth, MUTATED=impl one room"
	@echo "make clean   removes what make has made"

setup: $(STAMP) $(LINKS)

$(STAMP): pyproject.toml
	@echo "setup: installing into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: needs Python 3.11 or later; name one: make PYTHON=python3.11")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { echo "setup: install venv first: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# mypy does not follow the finder of an editable install: it reads the three rooms through this package of links.
$(FARM)/%:
	@mkdir -p $(FARM)
	@ln -sfn ../../../$* $@

packages:
	@PATH="$$PATH:/usr/sbin:/sbin"; lacking=; \
	for pair in $(DEBIAN); do command -v $${pair#*:} >/dev/null || lacking="$$lacking $${pair%:*}"; done; \
	if [ -z "$$lacking" ]; then echo "packages: all are here"; exit; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "packages: installing$$lacking"; \
		$(APT) $$lacking >/dev/null 2>&1 || { apt-get update --quiet && $(APT) $$lacking; } && exit; \
	fi; \
	echo "packages: not installed (needs root and apt-get), so tests that need them are skipped:$$lacking"

check: setup
	@echo "check: the reference against the spec"
	@$(BIN)/snapspec check ref:overlay

test: setup packages lint types tests

# The model's own tests measure its coverage alone: measuring slows the others down. Of those three run at a time, for some wait
# rather than work. tests/bench is left out: figures taken beside another worker say nothing.
tests: setup
	@echo "tests: the model, with branch coverage"
	@$(BIN)/pytest -n 2 --dist loadgroup -m "not deep" tests/model \
		--cov=model --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100
	@echo "tests: all others but the long ones"
	@$(BIN)/pytest -n 3 --dist loadgroup -m "not deep" --ignore tests/bench --ignore tests/model

deep: setup packages
	@echo "deep: all tests, with fresh random examples"
	@SNAPSPEC_PROFILE=nightly $(BIN)/pytest -n 2 --dist loadgroup --ignore tests/bench

lint: setup
	@echo "lint: ruff"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet

types: setup
	@echo "types: mypy --strict"
	@$(BIN)/mypy --strict $(ROOMS:%=-p snapspec.%)

proto: setup
	@echo "proto: generating the stubs"
	@$(BIN)/python -m snapspec.conformance.proto.generate

diagrams: setup
	@echo "diagrams: writing the model's diagrams into spec.md"
	@$(BIN)/python tests/write_diagrams.py

examples: setup
	@echo "examples: a legal and an illegal history of each clause, for snapspec explain"
	@$(BIN)/python -m snapspec.conformance.explain.examples

museum: setup
	@echo "museum: the checker on the known bugs"
	@HYPOTHESIS_STORAGE_DIRECTORY=.hypothesis $(BIN)/snapspec museum --seed 1 --write conformance/mutants/README.md

bench: setup
	@echo "bench: the figures of the model and the reference"
	@$(BIN)/pytest tests/bench -s -p no:xdist

# Exit status 1 where a mutant survives that tests/mutation/judged.toml does not know.
mutation: setup packages
	@echo "mutation: installing its extra"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,mutation]'
	@for room in $(MUTATED); do $(BIN)/python tests/mutation/run.py $$room --sample $(SAMPLE) || status=1; done; exit $${status:-0}

clean:
	@echo "clean: $(VENV), build, dist, caches"
	@rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find $(ROOMS) tests -name __pycache__ -prune -exec rm -rf {} +
