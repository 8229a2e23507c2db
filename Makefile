# The README's two commands are `make demo` and `make test`; both install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS := 10000
TELLING_SEEDS := 500
REBALANCE_SEEDS := 2000
FUZZ_SECONDS := 600
STAMP := $(VENV)/.installed

.PHONY: help install demo test long shake lint bench race accuracy faults supply schemas dashboards lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## prepare a fresh checkout: .venv with every locked dependency; .venv/bin/pipeline then works

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "compiling the core, once" && $(BIN)/python -m compileall -q pipeline schemas && $(BIN)/python -m pipeline.warm
	@touch $@

demo: install  ## one simulated Sunday of a city through a real Kafka, Faust and ClickHouse, then a live page; Ctrl-C ends it
	$(BIN)/pipeline demo

test: install  ## unit, property, integration and browser tests, with a real broker, a real ClickHouse engine, a Chromium: under ten minutes
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --durations 25 -m "not long"

long: install  ## the tests that take longest, which CI runs, too
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --durations 10 -m long

shake: install  ## five minutes of faults at random; CI runs them, too
	$(BIN)/python -m tests.faults.run --faults 60 --minutes 5 --pace 1 --no-bugs --overload 0 --kills 0

lint: install  ## ruff, mypy --strict and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install  ## scans/s beside a bare read of the same topic, and the race; live; growth; tracing over two weeks of a nation (4 GB of disk); requests/s; estimates; what habits tell of people
	$(BIN)/python -m benchmarks.main
	$(BIN)/python -m benchmarks.race
	$(BIN)/python -m benchmarks.live
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.cold_start
	$(BIN)/python -m benchmarks.tracing
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.presence
	$(BIN)/python -m benchmarks.linkage

race: install  ## the same job by Faust, Quix Streams, Bytewax, Pathway, Kafka Streams and ClickHouse alone; installs them into .race/
	$(BIN)/python -m benchmarks.race

accuracy: install  ## error of the estimated occupancy against a simulated truth, beside simpler rules; what released numbers are worth
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.release

faults: install  ## hurt a running pipeline 1,200 times, plant bugs that must be caught, overload it: hours; see docs/reliability.md
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS)
	$(BIN)/python -m tests.simulation.telling --seeds $(TELLING_SEEDS)
	$(BIN)/python -m tests.simulation.rebalances --seeds $(REBALANCE_SEEDS)
	$(BIN)/python -m tests.hostile.fuzz --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m tests.faults.run $(FAULTS)
	$(BIN)/python -m pytest tests/simulation tests/faults tests/integration/test_worker_killed.py tests/integration/test_gateway.py --faults

supply: install  ## the bill of materials (sbom.json), every licence, and known vulnerabilities where the advisory service answers
	$(BIN)/python infra/sbom.py sbom.json
	$(BIN)/python infra/licences.py
	$(BIN)/python infra/advisories.py

schemas: install  ## write the JSON Schemas and the AsyncAPI document from the pydantic models
	$(BIN)/python -m schemas.export

dashboards: install  ## write Grafana's boards as JSON into dashboards/json
	$(BIN)/python -m dashboards

lock:  ## resolve the dependencies again (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --output-file requirements.lock

clean:  ## remove the virtual environment and the local broker and store
	rm -rf $(VENV) .pipeline
