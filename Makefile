PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test bench soak backtest format clean

demo: $(STAMP)
	@$(BIN)/kvmenc demo

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q

bench: $(STAMP)
	$(BIN)/pytest -q -s -m bench tests/bench

# A tool that looks into a QEMU killed 1000 times at random instants and 1000 times at chosen ones,
# and as often with a sandboxed QEMU.
soak: $(STAMP)
	KVMENC_KILLS=2000 $(BIN)/pytest -q -s --timeout 1800 tests/qemu/test_unharmed.py

# Guests of our own on a real QEMU: captured, planned, migrated, compared.
backtest: $(STAMP)
	rm -rf .cache/backtest
	$(BIN)/python -m tests.qemu.backtest .cache/backtest
	$(BIN)/kvmenc backtest .cache/backtest/*.json

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache

# Installed again only when what is to be installed changes.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@
