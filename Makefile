# `make demo` and `make test` need Python 3.10 or later with pip, and git; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test setup check docs lock clean

demo: setup
	$(BIN)/rfdetr demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	touch .venv/ready

# After a change of a setting.
docs: setup
	$(BIN)/rfdetr settings > docs/settings.md

# After a change of dependencies in pyproject.toml. It takes the .venv that `make setup` has made.
lock:
	$(BIN)/uv pip compile pyproject.toml --group dev --extra loggers --universal --python-version 3.10 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet --output-file requirements.lock

clean:
	rm -rf .venv demo
