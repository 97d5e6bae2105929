# On a machine with python3 (3.11 or later) and make, each target first makes .venv; once only.
#
#   make demo                        a sweep on synthetic sound, and its report
#   make demo DATA=path/to/ESC-50    the same on real recordings
#   make test                        the quick tests
#   make setup | check | slow | lock | clean

PYTHON ?= python3
DATA ?=
BIN := .venv/bin
INSTALLED := .venv/.installed

ifeq ($(strip $(DATA)),)
DEMO_SET := demo/synthetic
DEMO_NAME := quickstart
PREPARE := $(BIN)/asit data synth --out $(DEMO_SET)
else
DEMO_SET := demo/esc50
DEMO_NAME := quickstart-esc50
PREPARE := $(BIN)/asit data prepare esc50 --root "$(DATA)" --num-mels 64 --out $(DEMO_SET)
endif

.PHONY: setup demo test check slow lock clean

setup: $(INSTALLED)

# uv installs in seconds what pip installs in minutes; pip only fetches uv.
$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: python 3.11 or later is needed, but $(PYTHON) is " + sys.version.split()[0] + "; make PYTHON=python3.11 names another")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --python $(BIN)/python --quiet -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --editable .
	touch $@

# `asit data` finds its own finished build, and refuses a folder that holds another data set.
demo: $(INSTALLED)
	$(PREPARE)
	$(BIN)/asit sweep run sweeps/quickstart.yaml --yes -S name=$(DEMO_NAME) -S data=$(DEMO_SET)

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not gpu"

lock: $(INSTALLED)
	$(BIN)/uv pip compile --quiet --universal --all-extras --python-version 3.11 \
		--custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

# Removes what `make` made; studies in results/ are yours and stay.
clean:
	rm -rf .venv demo build *.egg-info .pytest_cache .ruff_cache .hypothesis
