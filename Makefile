# `make demo` generates an image of a galaxy, `make test` runs everything.
VENV   := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/pytest -n logical --maxprocesses 4

.PHONY: demo test browser check install format wheel clean

demo: install
	$(BIN)/diffusekit generate "A beautiful galaxy"

test: install browser
	$(PYTEST)

# The web pages are tested in a real browser. Those tests are skipped when there is none and none can be installed.
browser:
	@command -v chromium >/dev/null \
	|| { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	|| echo "chromium not found: the tests of the web pages are skipped"

# The quick local loop: style, types and the quick tests.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(PYTEST) -m "not slow"

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
