# make demo   the main job on a real model: predict, profile, compare, fit to a third, verify
# make test   the tests
# make check  format, lint, types, layers, tests: what a change must pass
# make sanitize  the pool's stress test under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer
# make bench  the tables of benchmarks/results, measured anew (BENCH=name for one part)
#
# Each sets up what it needs in .venv. Another Python: make demo PYTHON=python3.12. Another source of torch, such as the
# smaller CPU build: make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STEP := examples/gpt2.py:training_step
BENCH ?= $(patsubst benchmarks/%.py,%,$(shell grep -l '__main__' benchmarks/*.py))
SOURCES := pyproject.toml CMakeLists.txt $(shell find src native -type f -not -name '*.pyc')

.PHONY: demo test check sanitize bench clean

demo: $(VENV)/memfit.done
	@mkdir -p out
	$(BIN)/memfit predict $(STEP)
	@echo
	$(BIN)/memfit profile $(STEP) --compare --html out/profile.html
	@echo
	$(BIN)/memfit fit $(STEP) --budget 33% --recipe out/gpt2.recipe.json --html out/fit.html

test: $(VENV)/memfit.done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: $(VENV)/check.done
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

bench: $(VENV)/memfit.done
	$(foreach part,$(BENCH),$(BIN)/python benchmarks/$(part).py &&) true

STRESS := native/stress/pool_stress.cc $(wildcard native/core/pool*.cc) native/core/greedy_placement.cc
STRESSED := build/stress-address,undefined build/stress-thread

sanitize: $(STRESSED)
	$(foreach program,$(STRESSED),./$(program) 4000 4 &&) true

build/stress-%: $(STRESS) $(wildcard native/core/*.h)
	@mkdir -p build
	$(CXX) -std=c++17 -O1 -g -fsanitize=$* -fno-sanitize-recover=all -fno-omit-frame-pointer -Inative $(STRESS) -o $@ -lpthread

clean:
	rm -rf $(VENV) build dist out

$(VENV)/torch.done:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH)
	@touch $@

$(VENV)/memfit.done: $(VENV)/torch.done $(SOURCES)
	$(BIN)/python -m pip install '.[torch,examples,test]'
	@touch $@

# The tools alone: '.[check]' would build the package once more.
CHECKERS := import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['check'])

$(VENV)/check.done: $(VENV)/memfit.done
	$(BIN)/python -c "$(CHECKERS)" | xargs $(BIN)/python -m pip install
	@touch $@
