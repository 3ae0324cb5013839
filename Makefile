PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests that compute and time nothing: they go beside those that are alone.
CALM := tests/backtest tests/plan tests/docs/test_site.py

# Tests start Python a thousand times, and each pytest would compile all of them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test types most-tests alone-tests calm-tests test-qemu-10
.PHONY: bench picture backtest docs schemas dist format clean
.PHONY: soak soak-order soak-conformance soak-storms soak-fuzz soak-fuzz-streams soak-fuzz-parsers

demo: $(STAMP)
	@$(BIN)/kvmenc demo

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory most-tests
	@$(MAKE) --no-print-directory -j2 alone-tests types calm-tests

# Types and calm tests take what no other process wants, so that those alone do not notice; where the
# system has no such thing they are nice.
IDLE := $(shell chrt --idle 0 true 2>/dev/null && echo chrt --idle 0 || echo nice -n 19)

types: $(STAMP)
	$(IDLE) $(BIN)/mypy

# More than there are cores: some wait, for a QEMU or for time to pass.
most-tests: $(STAMP)
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m "not (bench or alone)" \
	  $(CALM:%=--ignore=%)

calm-tests: $(STAMP)
	$(IDLE) $(BIN)/pytest -q -m "not (bench or alone)" $(CALM)

# Of all modules, to collect what is in them would take longer than to run a tenth of these.
alone-tests: $(STAMP)
	$(BIN)/pytest -q -m "alone and not bench" $$(grep -rl --include='test_*.py' mark.alone tests)

# Plans against migrations of the newer QEMU that tools/qemu-binary.sh has fetched.
test-qemu-10: $(STAMP)
	KVMENC_QEMU=$(CURDIR)/.cache/qemu-10.0/qemu-system-x86_64 \
	  $(BIN)/pytest -q tests/qemu/test_backtest.py -k as_it_was_planned

# The documentation as a site in .cache/site, every warning an error; nothing in it needs a network.
docs: $(STAMP)
	@$(BIN)/sphinx-build -q -W --keep-going -E -j auto -d .cache/doctrees docs .cache/site
	@! grep -rlE '<(script|link|img|iframe)[^>]* (src|href)="(https?:)?//' --include=*.html .cache/site
	@echo "docs: .cache/site/index.html"

bench: $(STAMP)
	$(BIN)/pytest -q -s -m bench tests/bench

# What docs/report.md and the README show; needs Chromium.
picture: $(STAMP)
	$(BIN)/python -m tests.report.page.picture docs/pictures/report.png

# A tool that looks into a QEMU killed 1000 times at random instants and 1000 times at chosen ones,
# and as often with a sandboxed QEMU.
soak: $(STAMP)
	KVMENC_KILLS=2000 $(BIN)/pytest -q -s --timeout 1800 tests/qemu/test_unharmed.py

# Guests that write and flip in threads while syncs run, some million steps.
soak-order: $(STAMP)
	KVMENC_ORDER_STEPS=5000000 $(BIN)/pytest -q -s --timeout 1800 tests/ordering/test_stress.py -k no_page

# Random sequences of calls, on the fake and on the kernel.
soak-conformance: $(STAMP)
	KVMENC_CONFORMANCE_EXAMPLES=5000 $(BIN)/pytest -q -s tests/fakekvm/test_conformance_machine.py

# All tests that meet a fake kernel, under each storm of faults, with ten seeds (3 hours).
soak-storms: $(STAMP)
	KVMENC_STORM_SEEDS=1-10 $(BIN)/pytest -q -s --timeout 3600 tests/storms/test_suite.py -k no_answer

# A million broken migration streams, each read or refused within bounds (20 to 30 minutes).
soak-fuzz-streams: $(STAMP)
	KVMENC_FUZZ_INPUTS=1000000 $(BIN)/pytest -q -s --timeout 14400 tests/stream/test_hostile.py -k no_input

# Every other parser, and the fake's firmware and ioctls: 40,000 broken inputs each, 1.2 million in
# all (15 minutes).
soak-fuzz-parsers: $(STAMP)
	KVMENC_FUZZ_INPUTS=40000 $(BIN)/pytest -q -s --timeout 14400 tests/fuzz

# Both.
soak-fuzz: soak-fuzz-streams soak-fuzz-parsers

# Guests of our own on a real QEMU, and on a newer one if tools/qemu-binary.sh has fetched it:
# captured, planned, migrated, compared. What was recorded before is kept, but for FRESH=1.
backtest: $(STAMP)
	@for qemu in qemu-system-x86_64 .cache/qemu-10.0/qemu-system-x86_64; do \
	  version=$$($$qemu --version 2>/dev/null | sed -n 's/.* version \([0-9]*\.[0-9]*\).*/\1/p'); \
	  test -n "$$version" || { echo "no $$qemu"; continue; }; \
	  folder=.cache/backtest-$$version; \
	  KVMENC_QEMU=$$qemu $(BIN)/python -m tests.qemu.backtest $$folder && \
	  $(BIN)/python -m tests.qemu.audit $$folder && \
	  $(BIN)/kvmenc backtest $$folder/*.json || exit; \
	done

# JSON schemas of what is printed and read, from the structs.
schemas: $(STAMP)
	$(BIN)/python -m tests.schemas.generate

# What would be published, in dist/: an sdist, and the wheel that is built of it.
dist: $(STAMP)
	@$(BIN)/python -m pip install --quiet --group dist
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) dist .cache .mypy_cache .ruff_cache .pytest_cache

# Installed again only when what is to be installed changes.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@
