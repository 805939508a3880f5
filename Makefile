# `make demo` and `make test` set everything up themselves; the second time they start at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests side by side; the tests of a file stay in one of them, so that what a file trains is trained once.
WORKERS ?= 2
# Threads that wait for each other cost more than they bring on shared cores.
export OMP_NUM_THREADS ?= 1
# Compiled modules are kept: every process that compiles the program anew would need a second more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test install lint docs package clean

demo: $(VENV)/program
	$(BIN)/ensemble demo

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Build the wheel and try it outside the source tree, in a new environment with the wheel alone. The new environment sees
# the dependencies that are installed here; `make package FRESH=1` builds in isolation and downloads every one anew (5 GB).
FRESH ?=
package: install
	rm -rf build dist
	$(BIN)/python -m build $(if $(FRESH),,--no-isolation) .
	.ci/check_wheel $(BIN)/python dist/*.whl $(FRESH)

# The documentation as a site in site/, which needs no network and no server to be read.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'open site/index.html; with search: python3 -m http.server -d site'

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[docs]'
	@touch $@

install: $(VENV)/installed

# The demo needs the program alone. An environment with the tools of development has it.
$(VENV)/program: pyproject.toml
	@test -e $(VENV)/installed && test ! pyproject.toml -nt $(VENV)/installed || $(MAKE) --no-print-directory environment EXTRAS=
	@touch $@

EXTRAS ?= [dev]
.PHONY: environment

# Done once, and again when the requirements change. Debian's python3 comes without ensurepip. Version 0.1.0 was
# distributed as `ensemble`: an environment that has it would keep two sets of metadata and one script.
$(VENV)/installed: pyproject.toml
	@$(MAKE) --no-print-directory environment
	@touch $@

environment:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; make PYTHON=python3.12 takes another one"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory python-venv
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -m pip show -q ensemble 2>/dev/null; then $(BIN)/python -m pip uninstall -q -y ensemble; fi
	rm -rf ensemble.egg-info
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.$(EXTRAS)'

.PHONY: python-venv
python-venv:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq python3-venv; \
	else echo "error: Python's venv module is missing; on Debian: sudo apt-get install python3-venv"; exit 1; fi

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist site
