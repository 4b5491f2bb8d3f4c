# Two commands do everything: `make demo` and `make test`. Both install what they need into .venv first.
.PHONY: demo test install lint types unit integration e2e rehearse format lock clean
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE :=  # tests start hundreds of processes: each would compile all modules again

demo: install  ## the main job: a GRPO run with every tool and both judges behind the queue (ARGS="--steps 10 --seed 1")
	$(BIN)/llmi demo $(ARGS)

test: install lint types unit integration e2e  ## everything CI checks
	@echo "make test: all tiers passed"

install:
	@ops/install.sh cpu

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

unit: install
	$(BIN)/pytest tests/unit -n 2 --dist loadfile -q

integration: install
	$(BIN)/pytest tests/integration -n 3 --dist loadfile -q  # they wait more than they work

e2e: install
	$(BIN)/pytest tests/e2e -q  # one after the other: two runs at once starve each other

rehearse: install  ## nightly: two steps of every shipped configuration, on this machine's CPUs
	$(BIN)/pytest tests/nightly -q

format: install
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: install  ## resolve pyproject.toml into locks/ again
	ops/lock.sh

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache *.egg-info
