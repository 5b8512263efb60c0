# `make demo` and `make test` set everything up themselves; only Python 3.11+, pip and make are needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export JAX_PLATFORMS ?= cpu

.PHONY: demo test lint docs bench clean

# The learning rates are those of `python benchmarks/tune.py`: the same grid for every rule.
demo: $(VENV)/.installed
	$(BIN)/anyprop compare \
	  backprop feedback-alignment direct-feedback-alignment sign-symmetry kolen-pollack \
	  node-perturbation weight-perturbation \
	  --net 784-256-10 --validation 10000 --epochs 6 --seeds 3 --optimizer momentum \
	  --learning-rate 0.1 node-perturbation=0.001 weight-perturbation=0.0001 \
	  --out runs/demo --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -e '.[bench]'
	$(BIN)/python benchmarks/against_hand_written.py --json benchmarks/against_hand_written.json
	$(BIN)/anyprop bench --net 784-500-10 --batch-size 128 --json benchmarks/bench.json
	$(BIN)/anyprop bench backprop target-propagation difference-target-propagation \
	  simplified-target-propagation local-difference-reconstruction iterative-target-propagation \
	  --net 784-240-240-240-240-240-240-240-10 --batch-size 100 --json benchmarks/bench_targets.json
	$(BIN)/anyprop bench backprop straight-through discrete-target-propagation \
	  --net 784-500-sign-500-10 --batch-size 100 --json benchmarks/bench_targets_discrete.json
	$(BIN)/anyprop bench backprop stochastic-target-propagation \
	  --net 784-200-200-10 --activation sigmoid --batch-size 100 --json benchmarks/bench_targets_stochastic.json
	$(BIN)/anyprop bench backprop target-propagation-em --net 784-1000-100-1000-784 --activation softplus \
	  --loss squared-error --reconstruct --batch-size 100 --json benchmarks/bench_targets_em.json
	$(BIN)/anyprop bench backprop alternating-minimization alternating-minimization-memory \
	  method-of-auxiliary-coordinates offline-alternating-minimization admm \
	  --net 784-100-100-10 --activation relu --batch-size 200 --json benchmarks/bench_auxiliary.json
	$(BIN)/anyprop bench backprop single-phase predictive-coding temporal-derivative contrastive-hebbian \
	  equilibrium-propagation vector-field-equilibrium-propagation continual-equilibrium-propagation \
	  initialized-equilibrium-propagation holomorphic-equilibrium-propagation \
	  stochastic-equilibrium-propagation early-inference backprop-through-relaxation implicit-differentiation \
	  contrastive-divergence boltzmann-learning deep-boltzmann \
	  --net 784-500-10 --activation sigmoid --batch-size 20 --json benchmarks/bench_equilibrium.json
	$(BIN)/python benchmarks/equilibrium_propagation.py --json benchmarks/equilibrium_propagation.json
	$(BIN)/python benchmarks/layer_parallel.py --json benchmarks/layer_parallel.json

clean:
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet -e .
	touch $@

# pip reads dependency groups from version 25.1 on, which the step above makes sure of.
$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml
	$(BIN)/pip install --quiet --group dev
	touch $@
