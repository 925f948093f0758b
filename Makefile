# One command for everything; CI runs the same. `make up` and `make test` each work alone on a fresh machine.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-dev
RUNTIME_STAMP := $(VENV)/.installed
# Debian packages whose programs check our protocols from outside, and the browser that opens the page.
DEBIAN_TEST_PACKAGES := snmp snmpd nfdump softflowd pmacct victoria-metrics chromium \
	frr frr-snmp lldpd netconfd netconfd-module-ietf-interfaces openssh-server iproute2

.PHONY: up test lint check format lock debian-test-packages

up: $(RUNTIME_STAMP)
	$(BIN)/ndtwin up $(ARGS)

# Two at a time, a file staying on one worker: most tests wait for clocks and processes, not for the processor.
# Then, one by one, those that need the machine for themselves. 5: no test of a kind, which only ARGS may cause.
test: $(STAMP) debian-test-packages
	@failed=0; \
	$(BIN)/pytest -n 2 --dist loadfile -m "not alone" $(ARGS) || test $$? -eq $(if $(ARGS),5,0) || failed=1; \
	$(BIN)/pytest -n 0 -m alone $(ARGS) || test $$? -eq $(if $(ARGS),5,0) || failed=1; \
	exit $$failed

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ndtwin needs Python 3.11 or newer: set PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq python3-venv; } || { echo "Python's venv module is missing: install the package python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME_STAMP): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(STAMP): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(RUNTIME_STAMP)

# Root installs what is missing; anybody else is told, and the tests that need it skip and say why.
debian-test-packages:
	@missing=""; for p in $(DEBIAN_TEST_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "Not installed, so some tests will skip:$$missing"; fi; fi

lock: $(STAMP)
	@{ echo "# The exact set that was tested (Python 3.11, Linux): 'pip install -c constraints.txt'. Made by 'make lock'."; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt
