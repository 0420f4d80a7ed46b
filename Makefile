# Everything that one does with a checkout. `make` or `make help` lists it. Needs Python 3.11 or newer, with venv.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 10014
DATA ?= dsm-data
ARGS ?=
# Tests at a time: one more than there are processors, since many wait for a process or the disk.
JOBS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

.DEFAULT_GOAL := help
.PHONY: help setup run demo test slow workers soak bench bench-quick profile coverage core-coverage lint format types docs docs-check check clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r t d; do printf '%-18s %s\n' "$$t" "$$d"; done
	@echo "  PORT=$(PORT) DATA=$(DATA) ARGS='--log-format json' change what make run does"

setup: $(READY) ## make .venv with everything in it (all the others do it when needed)

$(READY): setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer with venv found; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev,demo]'
	@touch $@

run: $(READY) ## run the gateway in the foreground, on port 10014
	$(BIN)/twistd --nodaemon --pidfile= dsmgateway --port $(PORT) --data $(DATA) $(ARGS)

demo: $(READY) ## see it work: simulated cameras with faults against a real gateway
	$(BIN)/python -m dsmgateway.simulator.demo

test: $(READY) ## run the tests, but for the slow ones
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow' $(ARGS)

slow: $(READY) ## run the slow tests: both ways to install, 300 cameras, kills in loops, power cuts (root)
	$(BIN)/python -m pytest -m slow $(ARGS)

workers: $(READY) ## run end-to-end tests of one process against two
	DSMGATEWAY_TEST_WORKERS=2 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow and not one_process' \
		$(addprefix tests/test_e2e_,$(addsuffix .py,vectors takeover restart families fleet kill balancer admission \
		chaos hostile leaks)) $(ARGS)

soak: $(READY) ## hunt: anything in any order, kills, power cuts (root), any bytes; DSMGATEWAY_SOAK=5 for five times as long
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: atheris || \
		echo "make: no atheris for this machine: any bytes are hunted for blindly" >&2
	DSMGATEWAY_SOAK=$${DSMGATEWAY_SOAK:-1} $(BIN)/python -m pytest -m soak -s $(ARGS)

bench: $(READY) ## measure, beside a bare Twisted sink: ~25 min; writes docs/performance.*; ARGS='--only A,D --runs 3' only shows
	$(BIN)/python bench/run.py $(if $(ARGS),$(ARGS),--json docs/performance.json)
	$(if $(ARGS),,$(BIN)/python bench/report.py)

bench-quick: $(READY) ## see that the benchmark works: every workload, small; fails when a file is missing or differs
	$(BIN)/python bench/run.py --quick $(ARGS)

profile: $(READY) ## a flame graph of the gateway in the benchmark's workload D; its path is printed
	$(BIN)/python bench/flame.py $(ARGS)

coverage: $(READY) ## run the tests and show which lines they miss
	$(BIN)/python -m pytest -m 'not slow' --cov $(ARGS)

# Everything up to the session, who may come in, and a balancer's header: no clock, no socket, no disk, so every branch
# can be reached by hand.
CORE := errors crc packets commands families metadata_layouts metadata_json metadata frames framing asked patience \
	events states effects transfer reception session \
	imei addresses known_devices admission crowd quiet flapping quota timing proxy_header \
	workers.owners workers.handover workers.backoff workers.pieces
CORE_TESTS := $(addprefix tests/test_,$(addsuffix .py,crc commands families metadata metadata_json \
	metadata_properties framing framing_properties patience events transfer session session_families session_table \
	vectors_session admission crowd flapping timing proxy_header workers))

core-coverage: $(READY) ## see that the tests take every branch of the pure core
	$(BIN)/python -m pytest -q -n auto $(CORE_TESTS) $(addprefix --cov=dsmgateway.,$(CORE)) --cov-branch --cov-fail-under=100 $(ARGS)

lint: $(READY) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## bring everything into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) ## check types
	$(BIN)/mypy

docs: $(READY) ## make the files that come from the code
	$(BIN)/python -m dsmgateway.config > etc/dsmgateway.toml
	$(BIN)/python docs/build.py

docs-check: $(READY) ## see that the files that come from the code are up to date
	$(BIN)/python -m dsmgateway.config | diff -u etc/dsmgateway.toml -
	$(BIN)/python docs/build.py --check

check: lint types test core-coverage demo docs-check ## all that has to be good before a change goes in

clean: ## delete everything that was made, but no received files
	rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache _trial_temp
	rm -f twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
