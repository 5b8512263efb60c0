"""How fast equilibrium propagation is against PyTorch loops, interleaved in one run.

    python benchmarks/equilibrium_propagation.py [--rounds 5] [--json benchmarks/equilibrium_propagation.json]

784-500-10 hard sigmoids, 20 free and 4 nudged steps from a state of zero, on 6,000 images of MNIST. "By hand" is the
dynamics written out, the input's contribution computed once a phase; "autograd" differentiates the energy in every
step, as one would prototype it. Needs PyTorch (`pip install 'anyprop[bench]'`).
"""

import argparse
import json
from functools import partial
from pathlib import Path

import jax
import optax
import torch
from against_hand_written import Epoch, interleave

import anyprop as ap
from anyprop._versions import versions
from anyprop.training._program import Program, describe

IMAGES, FREE, NUDGED, BETA, STEP, RATES = 6000, 20, 4, 0.5, 0.5, (0.1, 0.05)
MNIST = ap.data.load("mnist", train_size=IMAGES)
X, Y = torch.tensor(MNIST.train.x).reshape(-1, 784).float() / 255, torch.tensor(MNIST.train.y).long()


def anyprop_epoch(batch: int) -> Epoch:
    """As `ap.fit` runs it, compiled."""
    rule = ap.EquilibriumPropagation(BETA, "one-sided", nudged_steps=NUDGED, free_steps=FREE, step_size=STEP)
    net = ap.nets.mlp(784, 500, 10, activation="hard-sigmoid", output="hard-sigmoid", key=jax.random.key(0))
    data = MNIST.shaped(net.input_shape)
    learner = rule.init(net, data=describe(data), key=jax.random.key(1))

    def layer(path: tuple, _: object) -> str:
        return "first" if "stages[0]" in jax.tree_util.keystr(path) else "last"

    rates = dict(zip(("first", "last"), map(optax.sgd, RATES), strict=True))
    optimizer = optax.partition(rates, partial(jax.tree.map_with_path, layer))
    program = Program(rule, optimizer, data, [learner], batch_size=batch, alignment=False)
    keys = jax.random.split(jax.random.key(2), 1)
    program.compile(program.start, keys)
    state = program.start

    def epoch() -> None:
        nonlocal state
        state, steps = program.epoch(state, keys)
        jax.block_until_ready(steps)

    return epoch


def torch_epoch(batch: int, *, autograd: bool) -> Epoch:
    """Two phases in PyTorch: the slopes written out, or by autograd on the energy."""
    w1, w2 = torch.nn.init.xavier_normal_(torch.empty(784, 500)), torch.nn.init.xavier_normal_(torch.empty(500, 10))
    b1, b2 = torch.zeros(500), torch.zeros(10)
    start = torch.zeros(batch, 500), torch.zeros(batch, 10)
    targets = torch.nn.functional.one_hot(Y, 10).float()

    def energy(x, s1, s2, pull):
        inner = (s1 * (x @ w1 + b1)).sum() + (s2 * (s1 @ w2 + b2)).sum()
        leak = 0.5 * (s1 * s1).sum() + 0.5 * (s2 * s2).sum()
        return leak - inner + (0 if pull is None else 0.5 * BETA * ((s2 - pull) ** 2).sum())

    def settle_by_autograd(x, s1, s2, steps, pull):
        for _ in range(steps):
            s1, s2 = s1.detach().requires_grad_(), s2.detach().requires_grad_()
            d1, d2 = torch.autograd.grad(energy(x, s1, s2, pull), (s1, s2))
            s1, s2 = (s1 - STEP * d1).detach().clamp_(0, 1), (s2 - STEP * d2).detach().clamp_(0, 1)
        return s1, s2

    @torch.no_grad()
    def settle_by_hand(x, s1, s2, steps, pull):
        drive = torch.addmm(b1, x, w1)
        for _ in range(steps):
            d1 = torch.addmm(drive, s2, w2.T) - s1
            d2 = torch.addmm(b2, s1, w2) - s2
            if pull is not None:
                d2 += BETA * (pull - s2)
            s1, s2 = torch.add(s1, d1, alpha=STEP).clamp_(0, 1), torch.add(s2, d2, alpha=STEP).clamp_(0, 1)
        return s1, s2

    settle = settle_by_autograd if autograd else settle_by_hand

    def epoch() -> None:
        order = torch.randperm(IMAGES)
        for at in range(0, IMAGES - batch + 1, batch):
            index = order[at : at + batch]
            x = X[index]
            f1, f2 = settle(x, *start, FREE, None)
            n1, n2 = settle(x, f1, f2, NUDGED, targets[index])
            scale = 1 / (BETA * batch)
            w1.add_(x.T @ (n1 - f1), alpha=RATES[0] * scale)
            b1.add_((n1 - f1).sum(0), alpha=RATES[0] * scale)
            w2.add_(n1.T @ n2 - f1.T @ f2, alpha=RATES[1] * scale)
            b2.add_((n2 - f2).sum(0), alpha=RATES[1] * scale)

    return epoch


def main() -> None:
    """Run the comparison at two batch sizes and print epoch times and their ratio to anyprop's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for batch in (20, 128):
        contestants = {
            "anyprop": anyprop_epoch(batch),
            "PyTorch by hand": torch_epoch(batch, autograd=False),
            "PyTorch with autograd": torch_epoch(batch, autograd=True),
        }
        results[f"equilibrium propagation, 784-500-10, batch {batch}"] = interleave(contestants, options.rounds)
    for title, seconds in results.items():
        print(title)
        for name, value in seconds.items():
            ratio = value / seconds["anyprop"]
            print(f"  {name:<28} {IMAGES / value:8.0f} images a second   {ratio:6.2f} x the time of anyprop")
    if options.json:
        options.json.write_text(json.dumps({"versions": versions(), "seconds_per_epoch": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
