# make demo [STUDY=path]   set up, send a study in as a scanner would, print what was found
# make start [PORT=7071]   set up, serve until interrupted
# make test                set up, pass the checks and the tests
# make test-train          set up Ultralytics in .venv-train, train for some minutes, compare with it
# make bench               measure the pipeline against its ceiling

PORT ?= 7071
PYTHON := .venv/bin/python

.PHONY: demo start test test-train check bench setup clean

demo: setup
	@$(PYTHON) -m demo $(if $(STUDY),"$(STUDY)")

start: setup
	@$(PYTHON) -m demo.serve --port $(PORT)

# Most tests wait for processes and clocks more than they work, so a few files run side by side.
test: setup check
	@./setup.sh peers
	$(PYTHON) -m pytest -q -m "not training" -n 3 --dist loadfile $(PYTEST_ARGS)

test-train: .venv-train/.installed node_modules/.installed
	.venv-train/bin/python -m pytest -q -m training $(PYTEST_ARGS)

check: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

bench: setup
	$(PYTHON) -m benchmarks.pipeline $(BENCH_ARGS)

setup: .venv/.installed node_modules/.installed

.venv/.installed: requirements.txt requirements-dev.txt setup.sh
	@./setup.sh python
	@touch $@

node_modules/.installed: package.json package-lock.json setup.sh | .venv/.installed
	@./setup.sh node
	@touch $@

.venv-train/.installed: requirements.txt requirements-dev.txt requirements-train.txt setup.sh
	@./setup.sh train
	@touch $@

clean:
	rm -rf .venv .venv-train node_modules .azurite runs
