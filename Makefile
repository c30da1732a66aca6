# Two commands to know: `make demo` draws a galaxy, `make test` runs everything.
VENV   := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test browser check install format wheel clean

demo: install
	$(BIN)/diffusekit generate "A beautiful galaxy"

test: install browser
	$(BIN)/pytest

# The pages are tested in a real browser; where there is none and none can be installed, those tests are skipped.
browser:
	@command -v chromium >/dev/null \
	|| { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	|| echo "there is no chromium: tests of the web pages are skipped"

# The quick local loop: style, types, and the tests that take seconds.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest -m "not slow"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffusekit needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: install
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist outputs .pytest_cache .ruff_cache .hypothesis
