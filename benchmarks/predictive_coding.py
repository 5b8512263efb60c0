"""How fast predictive coding is here and in FabricPC, interleaved in one run.

    python benchmarks/predictive_coding.py [--rounds 5] [--json benchmarks/predictive_coding.json]

One epoch of MNIST on 784-300-300-10 with tanh units, 20 inference steps of 0.1, the output clamped, batches of 64,
Adam. The rounds go through the contestants in turn, so that a machine that slows down slows them all, and medians are
compared. FabricPC is optional (`pip install fabricpc`). It runs twice: its own `train`, without progress bar, and a
loop around the step that it gives for loops of one's own. Its batches lie ready in memory, so that no loader is timed.
"The products alone" are those of inference between the hidden layers, up and down, with nothing else around them: time
that no implementation on the same library saves.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from against_hand_written import MNIST, Epoch, X, Y, interleave

import anyprop as ap
from anyprop._versions import versions
from anyprop.rules.equilibrium import PredictiveCoding, SinglePhase
from anyprop.training._program import Program, describe

try:
    import fabricpc
    import fabricpc.core.activations
    import fabricpc.core.inference
    import fabricpc.core.topology
    import fabricpc.graph_assembly
    import fabricpc.graph_initialization
    import fabricpc.nodes
    import fabricpc.training.trainer
except ImportError:
    fabricpc = None

SIZES = (784, 300, 300, 10)
STEPS, STEP_SIZE, BATCH, RATE = 20, 0.1, 64, 1e-3


def network() -> ap.nets.Chain:
    """784-300-300-10 with tanh units."""
    return ap.nets.mlp(*SIZES, activation="tanh", key=jax.random.key(0))


def anyprop_epoch(rule: ap.Rule) -> Epoch:
    """One epoch as `ap.fit` runs it, compiled."""
    model = network()
    data = MNIST.shaped(model.input_shape)
    learner = rule.init(model, data=describe(data), key=jax.random.key(1))
    program = Program(rule, optax.adam(RATE), data, [learner], batch_size=BATCH, alignment=False)
    keys = jax.random.split(jax.random.key(2), 1)
    program.compile(program.start, keys)
    state = program.start

    def epoch() -> None:
        nonlocal state
        state, steps = program.epoch(state, keys)
        jax.block_until_ready(steps)

    return epoch


def products_epoch() -> Epoch:
    """The products between the hidden layers that the inference of an epoch takes."""
    weight = jax.nn.initializers.orthogonal()(jax.random.key(0), (SIZES[1], SIZES[2]))  # so that nothing dies out
    below = jax.random.normal(jax.random.key(1), (BATCH, SIZES[1]))

    @jax.jit
    def products(below: jax.Array, weight: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, len(X) // BATCH * STEPS, lambda _, h: h @ weight @ weight.T, below)

    def epoch() -> None:
        products(below, weight).block_until_ready()

    return epoch


def fabricpc_graph() -> tuple:
    """The same network as a graph of FabricPC, and its parameters. Its states are rates, s_k = f(W_k s_{k-1} + b_k)."""
    tanh, linear = fabricpc.core.activations.TanhActivation(), fabricpc.core.activations.IdentityActivation()
    units = [linear, *[tanh] * (len(SIZES) - 2), linear]
    nodes = [
        fabricpc.nodes.Linear(shape=(size,), activation=f, name=f"layer{i}")
        for i, (size, f) in enumerate(zip(SIZES, units, strict=True))
    ]
    edge = fabricpc.core.topology.Edge
    structure = fabricpc.graph_assembly.graph(
        nodes=nodes,
        edges=[edge(source=a, target=b.slot("in")) for a, b in itertools.pairwise(nodes)],
        task_map=fabricpc.graph_assembly.TaskMap(x=nodes[0], y=nodes[-1]),
        inference=fabricpc.core.inference.InferenceSGD(eta_infer=STEP_SIZE, infer_steps=STEPS),
    )
    return structure, fabricpc.graph_initialization.initialize_params(structure, jax.random.key(0))


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """MNIST in batches of arrays."""
    steps = len(X) // BATCH
    x = (X[: steps * BATCH].astype(np.float32) / 255).reshape(steps, BATCH, -1)
    return list(zip(x, np.eye(10, dtype=np.float32)[Y[: steps * BATCH]].reshape(steps, BATCH, -1), strict=True))


def fabricpc_epoch() -> Epoch:
    """One epoch of a loop of one's own around `make_train_step`."""
    structure, params = fabricpc_graph()
    optimizer = optax.adam(RATE)
    state, loader = optimizer.init(params), batches()
    step = fabricpc.training.trainer.make_train_step(structure, optimizer)

    def epoch() -> None:
        nonlocal params, state
        key = jax.random.key(0)
        for x, y in loader:
            params, state, _, _ = step(params, state, {"x": jnp.asarray(x), "y": jnp.asarray(y)}, key)
        jax.block_until_ready(params)

    return epoch


def rounds_of_fabricpc(others: dict[str, Epoch], rounds: int) -> dict[str, float]:
    """The median seconds of an epoch of FabricPC's own training loop, and of the others between its epochs."""
    seconds: dict[str, list[float]] = {name: [] for name in [*others, "FabricPC, train"]}
    begin = 0.0

    def between(context: object) -> None:
        del context
        nonlocal begin
        seconds["FabricPC, train"].append(time.perf_counter() - begin)
        for name, epoch in others.items():
            begin = time.perf_counter()
            epoch()
            seconds[name].append(time.perf_counter() - begin)
        begin = time.perf_counter()

    structure, params = fabricpc_graph()
    settings = {"num_epochs": rounds + 1}
    optimizer, key = optax.adam(RATE), jax.random.key(0)
    train = fabricpc.training.trainer.train
    train(params, structure, batches(), optimizer, settings, key, verbose=False, epoch_callback=between)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Run the comparison and print the epoch times and their ratio to anyprop's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    contestants = {
        "anyprop": anyprop_epoch(PredictiveCoding(1.0, steps=STEPS, step_size=STEP_SIZE)),
        "the products alone": products_epoch(),
        "anyprop, single phase": anyprop_epoch(SinglePhase()),
        "anyprop, backprop": anyprop_epoch(ap.Backprop(loss="squared-error")),
    }
    if fabricpc:
        contestants["FabricPC, make_train_step"] = fabricpc_epoch()
    seconds = (rounds_of_fabricpc if fabricpc else interleave)(contestants, options.rounds)
    for name, value in seconds.items():
        print(f"{name:<28} {value:8.2f} s an epoch   {value / seconds['anyprop']:6.2f} x anyprop")
    if options.json:
        net = "-".join(map(str, SIZES))
        results = {f"predictive coding, {net}, batch {BATCH}": seconds}
        options.json.write_text(json.dumps({"versions": versions(), "seconds_per_epoch": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
