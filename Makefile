# Everything from a fresh clone: `make demo` runs the main job, `make test` checks and tests. See README.md.
PYTHON ?= python3
BIN := .venv/bin
# pip takes the CPU build where a configured index or folder carries it and there is no GPU; else the usual one.
TORCH := torch==2.13.0
TORCH_CPU := torch==2.13.0+cpu
TRITON := triton==3.9.0
# One process a core, each with one thread; the tests of a file stay together, as they share what they made.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all bench check format base clean

demo: .venv/.installed
	$(BIN)/tuneloop demo

test: check .venv/beside
	$(PYTEST)

# The tests of `make test`, every architecture by every method, and new random examples instead of the same ones.
test-all: check .venv/beside
	HYPOTHESIS_PROFILE=explore $(PYTEST) -m "matrix or not matrix"

# Training side by side with TRL, LLaMA-Factory and a plain loop (installed apart, about 3 GB): benchmarks/RESULTS.md.
# An hour and more on two cores; `make bench WORKS=alpaca-full ROUNDS=1` is a part of it.
ROUNDS := 3
bench: .venv/.installed
	$(BIN)/python benchmarks/train.py $(WORKS) --rounds $(ROUNDS)
	$(BIN)/python benchmarks/train.py --write

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Rebuilds the embedded base model: text, tokenizer, weights, probes (an hour on two cores).
base: .venv/.installed
	$(BIN)/python -m seedling.build

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "tuneloop needs Python 3.11 or newer; make PYTHON=python3.11 names another one"; exit 1; }
	$(PYTHON) -m venv .venv
	@if command -v nvidia-smi >/dev/null 2>&1; then $(BIN)/pip install $(TORCH); \
	else $(BIN)/pip install $(TORCH_CPU) 2>/dev/null || { \
		echo "no index with a CPU build of torch is configured for pip: taking the larger default build"; \
		$(BIN)/pip install $(TORCH); }; fi
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	touch $@

# For the tests of what is written for GPUs. Apart from the rest, as users without a GPU have none and bitsandbytes imports it.
.venv/beside: .venv/.installed
	$(BIN)/pip install --no-deps --target $@ $(TRITON) || echo "no Triton: tests of what is written for GPUs are skipped"
	mkdir -p $@ && touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
