"""Block Gibbs sampling of a restricted Boltzmann machine: anyprop's sweeps against those of thrml.

    python benchmarks/gibbs_against_thrml.py [--visible 784] [--hidden 500] [--chains 100] [--sweeps 20] [--rounds 3]

thrml (pip install thrml) samples graphs with any connections, node by node along lists of edges; layers are matrix
products here. Both draw all visible units, then all hidden ones, in one compiled program of so many sweeps; the
two take turns. Units of -1 and 1, the same weights.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
from thrml.block_management import Block
from thrml.block_sampling import SamplingSchedule, sample_states
from thrml.models.ising import IsingEBM, IsingSamplingProgram
from thrml.pgm import SpinNode

import anyprop as ap


def ours(visible, hidden, chains, sweeps, key):
    """A function of a key that takes so many sweeps of so many chains."""
    machine = ap.energies.Boltzmann(ap.nets.mlp(visible, hidden, output="tanh", key=key))

    @jax.jit
    def run(key):
        def sweep(i, state):
            return machine.sweep(state, machine.groups, jax.random.fold_in(key, i))

        return jax.lax.fori_loop(0, sweeps, sweep, machine.start(chains, key=key))[0]

    return run, machine.chain.stages[0].weight


def theirs(weight, chains, sweeps):
    """The same with thrml."""
    visible, hidden = weight.shape
    below, above = [SpinNode() for _ in range(visible)], [SpinNode() for _ in range(hidden)]
    edges = [(v, h) for v in below for h in above]
    blocks = [Block(below), Block(above)]
    model = IsingEBM([*below, *above], edges, jnp.zeros(visible + hidden), weight.ravel(), jnp.array(1.0))
    program = IsingSamplingProgram(model, blocks, clamped_blocks=[])
    schedule = SamplingSchedule(n_warmup=sweeps, n_samples=1, steps_per_sample=1)

    @jax.jit
    def run(key):
        def chain(key):
            key_start, key_run = jax.random.split(key)
            start = [jax.random.bernoulli(key_start, shape=(len(block.nodes),)) for block in blocks]
            return sample_states(key_run, program, schedule, start, [], [Block(below)])[0]

        return jax.vmap(chain)(jax.random.split(key, chains))

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("visible", 784), ("hidden", 500), ("chains", 100), ("sweeps", 20), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    key = jax.random.key(0)
    run, weight = ours(a.visible, a.hidden, a.chains, a.sweeps, key)
    runs = {"anyprop": run, "thrml": theirs(weight, a.chains, a.sweeps)}
    rates = {name: [] for name in runs}
    for name, function in runs.items():
        begin = time.perf_counter()
        jax.block_until_ready(function(key))
        print(f"{name}: first call {time.perf_counter() - begin:.1f} s", flush=True)
    for seed in range(a.rounds):
        for name, function in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(function(jax.random.key(seed)))
            rates[name].append(a.sweeps / (time.perf_counter() - begin))
    print(json.dumps({"settings": vars(a), "sweeps_per_second": {n: statistics.median(r) for n, r in rates.items()}}))


if __name__ == "__main__":
    main()
