# make demo [STUDY=path]   set up, send a study in as a scanner would, print what was found
# make start [PORT=7071]   set up, serve until interrupted
# make test                set up, pass the checks and the tests
# make test-train          set up Ultralytics in .venv-train, train for some minutes, compare with it
# make bench               measure the pipeline against its ceiling
# make page                build the review page, which the others do where its sources changed

PORT ?= 7071
PYTHON := .venv/bin/python

.PHONY: page demo start test test-train check bench setup clean

demo: setup page
	@$(PYTHON) -m demo $(if $(STUDY),"$(STUDY)")

start: setup page
	@$(PYTHON) -m demo.serve --port $(PORT)

# Most tests wait for processes and clocks more than they work, so a few files run side by side.
test: setup check page
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

page: web/dist/index.html

web/dist/index.html: web/node_modules/.installed web/index.html web/vite.config.js \
		web/tsconfig.json $(shell find web/src -type f)
	@./setup.sh page

web/node_modules/.installed: web/package.json web/package-lock.json setup.sh | .venv/.installed
	@./setup.sh page-packages
	@touch $@

.venv-train/.installed: requirements.txt requirements-dev.txt requirements-train.txt setup.sh
	@./setup.sh train
	@touch $@

clean:
	rm -rf .venv .venv-train node_modules web/node_modules web/dist .azurite runs
