"""Block Gibbs sampling of a restricted Boltzmann machine: anyprop's sweeps against those of thrml.

    python benchmarks/gibbs_against_thrml.py [--rounds 5] [--json benchmarks/gibbs_against_thrml.json]

thrml (pip install thrml) samples graphs with any connections, node by node along lists of edges; layers are matrix
products here. Both draw all visible units, then all hidden ones, in one compiled program of so many sweeps; the
two take turns. Units of -1 and 1, the same weights.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from against_hand_written import interleave
from thrml.block_management import Block
from thrml.block_sampling import SamplingSchedule, sample_states
from thrml.models.ising import IsingEBM, IsingSamplingProgram
from thrml.pgm import SpinNode

import anyprop as ap
from anyprop._versions import versions


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


def main() -> None:
    """Run the comparison and print the times and their ratio to anyprop's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("visible", 784), ("hidden", 500), ("chains", 100), ("sweeps", 20), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    key = jax.random.key(0)
    run, weight = ours(options.visible, options.hidden, options.chains, options.sweeps, key)
    runs = {"anyprop": run, "thrml": theirs(weight, options.chains, options.sweeps)}
    contestants = {name: lambda run=run: jax.block_until_ready(run(key)) for name, run in runs.items()}
    seconds = interleave(contestants, options.rounds)
    for name, value in seconds.items():
        print(f"{name:<8} {value:8.3f} s   {value / seconds['anyprop']:6.2f} x anyprop")
    if options.json:
        title = f"{options.sweeps} sweeps of {options.chains} chains, {options.visible}-{options.hidden}"
        results = {"versions": versions(), "seconds_per_epoch": {title: seconds}}
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
