"""What it gains to update layers on devices of their own, here on the cores of one processor.

    python benchmarks/layer_parallel.py [--rounds 9] [--json benchmarks/layer_parallel.json]

Alternating minimisation with Adam on dense nets, batch 200: one program for all layers, as `anyprop.fit` has it,
against `LayerParallel` on 1, 2 and 4 host devices. The rounds go through all of them in turn, and medians are
compared. Host devices share the cores, so there is a gain only where one layer leaves cores idle.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import equinox as eqx
import jax
import optax

import anyprop as ap
from anyprop._versions import versions
from anyprop.rules.auxiliary import AlternatingMinimization
from anyprop.training._layer_parallel import LayerParallel

BATCH = 200
STEPS = 10
"""Steps that are timed together."""

RULE = AlternatingMinimization()
ADAM = optax.adam(0.008)
Steps = Callable[[], object]


def start(sizes: Sequence[int]) -> tuple[ap.Learner, ap.Batch]:
    """A network and a batch of noise, which costs what images cost."""
    keys = jax.random.split(jax.random.key(0), 3)
    batch = ap.Batch(jax.random.normal(keys[0], (BATCH, sizes[0])), jax.random.randint(keys[1], (BATCH,), 0, sizes[-1]))
    return RULE.init(ap.nets.mlp(*sizes, activation="relu", key=keys[2]), key=keys[2]), batch


def in_sequence(sizes: Sequence[int]) -> Steps:
    """`STEPS` steps of one compiled program."""
    learner, batch = start(sizes)
    opt_state = ADAM.init(learner.params)

    @eqx.filter_jit
    def step(learner: ap.Learner, opt_state: optax.OptState) -> tuple[ap.Learner, optax.OptState]:
        credit = RULE.credit(learner, batch, key=jax.random.key(0))
        updates, opt_state = ADAM.update(credit.grads, opt_state, learner.params)
        return learner.apply(updates, credit.memory), opt_state

    def steps() -> None:
        nonlocal learner, opt_state
        for _ in range(STEPS):
            learner, opt_state = step(learner, opt_state)
        jax.block_until_ready(eqx.filter(learner, eqx.is_array))

    return steps


def in_parallel(sizes: Sequence[int], devices: int) -> Steps:
    """`STEPS` steps with the layers spread over devices."""
    learner, batch = start(sizes)
    parallel = LayerParallel(RULE, learner, ADAM, devices=jax.devices()[:devices])
    state = parallel.start

    def steps() -> None:
        nonlocal state
        for _ in range(STEPS):
            state, _ = parallel.step(state, batch)
        jax.block_until_ready(state)

    return steps


def interleave(contestants: dict[str, Steps], rounds: int) -> dict[str, float]:
    """The median steps per second of each contestant, after one round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, steps in contestants.items():
            begin = time.perf_counter()
            steps()
            if number:
                rates[name].append(STEPS / (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    """Run every comparison and print, for each, the steps per second and their ratio to the single program's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for sizes in ((784, 100, 100, 10), (784, 500, 500, 10), (784, 1000, 1000, 1000, 10)):
        contestants = {"one program": in_sequence(sizes)}
        for devices in (1, 2, 4):
            contestants[f"{devices} device{'s' * (devices > 1)}"] = in_parallel(sizes, devices)
        results["-".join(map(str, sizes))] = interleave(contestants, options.rounds)

    for title, rates in results.items():
        print(f"{title}, batch {BATCH}")
        for name, value in rates.items():
            print(f"  {name:<12} {value:8.1f} steps/s   {value / rates['one program']:6.2f} x one program")
    if options.json:
        options.json.write_text(json.dumps({"versions": versions(), "steps_per_second": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
