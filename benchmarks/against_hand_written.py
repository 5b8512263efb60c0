"""How fast `anyprop.fit` is against code written by hand: JAX, NumPy and PyTorch, interleaved in one run.

    python benchmarks/against_hand_written.py [--rounds 5] [--json benchmarks/against_hand_written.json]

Each contestant trains one epoch of MNIST; the rounds go through all contestants in turn, so that a machine
that slows down slows them all, and medians are compared. PyTorch is optional (`pip install 'anyprop[bench]'`).
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

import anyprop as ap
from anyprop._versions import versions
from anyprop.training._program import Program, describe

try:
    import torch
except ImportError:
    torch = None

MNIST = ap.data.load("mnist")
X, Y = MNIST.train.x.reshape(-1, 784), MNIST.train.y
RATE = 0.1
Epoch = Callable[[], object]


def anyprop_epoch(rule: ap.Rule, build: Callable[..., ap.nets.Chain], batch: int, seeds: int = 1) -> Epoch:
    """One epoch as `ap.fit` runs it, compiled."""
    models = [build(key=jax.random.key(seed)) for seed in range(seeds)]
    data = MNIST.shaped(models[0].input_shape)
    learners = [rule.init(model, data=describe(data), key=jax.random.key(1)) for model in models]
    program = Program(rule, optax.sgd(RATE), data, learners, batch_size=batch, alignment=False)
    keys = jax.random.split(jax.random.key(2), seeds)
    program.compile(program.start, keys)
    state = program.start

    def epoch() -> None:
        nonlocal state
        state, steps = program.epoch(state, keys)
        jax.block_until_ready(steps)

    return epoch


def jax_epoch(sizes: tuple[int, ...], batch: int) -> Epoch:
    """The least that backprop in JAX needs: a `lax.scan` over shuffled batches, parameters in a list."""
    init = jax.nn.initializers.glorot_normal()
    keys = jax.random.split(jax.random.key(0), len(sizes))
    start = [(init(k, nm), jnp.zeros(nm[1])) for k, nm in zip(keys, itertools.pairwise(sizes), strict=False)]
    x, y = jnp.asarray(X), jnp.asarray(Y)

    def cost(params: list, h: jax.Array, y: jax.Array) -> jax.Array:
        for w, b in params[:-1]:
            h = jnp.tanh(h @ w + b)
        w, b = params[-1]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(h @ w + b, y))

    def step(params: list, index: jax.Array) -> tuple[list, jax.Array]:
        loss, grads = jax.value_and_grad(cost)(params, x_[index].astype(jnp.float32) / 255, y_[index])
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), loss

    x_, y_ = x, y

    @partial(jax.jit, donate_argnums=0)
    def run(params: list, key: jax.Array) -> tuple[list, jax.Array]:
        steps = len(x) // batch
        order = jax.random.permutation(key, len(x))[: steps * batch].reshape(steps, batch)
        return jax.lax.scan(step, params, order)

    params, losses = run(start, jax.random.key(1))
    jax.block_until_ready(losses)

    def epoch() -> None:
        nonlocal params
        params, losses = run(params, jax.random.key(1))
        jax.block_until_ready(losses)

    return epoch


def products_epoch(sizes: tuple[int, ...], batch: int) -> Epoch:
    """The least that any such rule needs: each layer's forward product and that of its update, and nothing else."""
    keys = jax.random.split(jax.random.key(0), len(sizes))
    weights = [jax.random.normal(k, nm) for k, nm in zip(keys, itertools.pairwise(sizes), strict=False)]
    h = [jax.random.normal(k, (batch, n)) for k, n in zip(keys, sizes, strict=True)]

    def step(weights: list, _: None) -> tuple[list, None]:
        # Nothing that is multiplied by zero in floating point may be left out: each product is computed.
        return [w - 0.0 * (h[i].T @ (h[i + 1] - h[i] @ w)) for i, w in enumerate(weights)], None

    run = jax.jit(lambda weights: jax.lax.scan(step, weights, length=len(X) // batch)[0])
    jax.block_until_ready(run(weights))
    return lambda: jax.block_until_ready(run(weights))


def numpy_epoch(rule: str, batch: int, dtype: type) -> Epoch:
    """Feedback alignment or Kolen-Pollack on 784-500-10 in NumPy; float64 is what it computes in if not told."""
    rng = np.random.default_rng(0)
    w1, w2, feedback = (
        rng.normal(0, (2 / (n + m)) ** 0.5, (n, m)).astype(dtype) for n, m in ((784, 500), (500, 10), (500, 10))
    )
    b1, b2 = np.zeros(500, dtype), np.zeros(10, dtype)
    x = X.astype(dtype) / 255
    targets = np.eye(10, dtype=dtype)[Y]
    decay = dtype(1e-4)

    def epoch() -> None:
        order = rng.permutation(len(x))
        for at in range(0, len(x) - batch + 1, batch):
            index = order[at : at + batch]
            h0, t = x[index], targets[index]
            h1 = np.tanh(h0 @ w1 + b1)
            logits = h1 @ w2 + b2
            p = np.exp(logits - logits.max(1, keepdims=True))
            e = (p / p.sum(1, keepdims=True) - t) / batch
            delta = (e @ feedback.T) * (1 - h1**2)
            increment = h1.T @ e
            w1[...] -= RATE * (h0.T @ delta)
            b1[...] -= RATE * delta.sum(0)
            w2[...] -= RATE * increment
            b2[...] -= RATE * e.sum(0)
            if rule == "kolen-pollack":
                w1[...] -= RATE * decay * w1
                w2[...] -= RATE * decay * w2
                feedback[...] -= RATE * (increment + decay * feedback)

    return epoch


def torch_epoch(sizes: tuple[int, ...], batch: int) -> Epoch:
    """Backprop in PyTorch with the data as one tensor and a hand-written loop over shuffled batches."""
    layers = [m for n, k in itertools.pairwise(sizes) for m in (torch.nn.Linear(n, k), torch.nn.Tanh())]
    model = torch.nn.Sequential(*layers[:-1])
    return _torch_loop(model, torch.tensor(X, dtype=torch.float32) / 255, batch)


def torch_lenet_epoch(batch: int) -> Epoch:
    """Backprop on LeNet-5 in PyTorch, hand-written loop."""
    n = torch.nn
    model = n.Sequential(
        n.Conv2d(1, 6, 5, padding=2), n.Tanh(), n.AvgPool2d(2), n.Conv2d(6, 16, 5), n.Tanh(), n.AvgPool2d(2),
        n.Flatten(), n.Linear(400, 120), n.Tanh(), n.Linear(120, 84), n.Tanh(), n.Linear(84, 10),
    )  # fmt: skip
    return _torch_loop(model, torch.tensor(X, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255, batch)


def _torch_loop(model: "torch.nn.Module", x: "torch.Tensor", batch: int) -> Epoch:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    y = torch.tensor(Y, dtype=torch.long)

    def epoch() -> None:
        order = torch.randperm(len(x))
        for at in range(0, len(x) - batch + 1, batch):
            index = order[at : at + batch]
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()

    return epoch


def torch_loader_epoch(rule: str, batch: int) -> Epoch:
    """Feedback alignment or Kolen-Pollack on 784-500-10 as published code does it: autograd and a DataLoader."""

    class Feedback(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h, weight, bias, feedback):
            ctx.save_for_backward(h, feedback)
            return h @ weight.T + bias

        @staticmethod
        def backward(ctx, error):
            h, feedback = ctx.saved_tensors
            increment = error.T @ h
            return error @ feedback, increment, error.sum(0), increment

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(784, 500), torch.nn.Linear(500, 10)
            self.b1 = torch.nn.Parameter(torch.randn(500, 784) * 0.05, requires_grad=rule == "kolen-pollack")
            self.b2 = torch.nn.Parameter(torch.randn(10, 500) * 0.05, requires_grad=rule == "kolen-pollack")

        def forward(self, x):
            h = torch.tanh(Feedback.apply(x, self.first.weight, self.first.bias, self.b1))
            return Feedback.apply(h, self.second.weight, self.second.bias, self.b2)

    class Images(torch.utils.data.Dataset):
        """What torchvision's MNIST with ToTensor and Normalize does an example, written out: its usual use."""

        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            image = Image.fromarray(MNIST.train.x[i, :, :, 0])
            pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).view(28, 28, 1)
            pixels = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
            mean, std = torch.tensor([0.1307]).view(-1, 1, 1), torch.tensor([0.3081]).view(-1, 1, 1)
            return pixels.clone().sub_(mean).div_(std), int(Y[i])

    model = Net()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, weight_decay=1e-4 if rule == "kolen-pollack" else 0.0)
    loader = torch.utils.data.DataLoader(Images(), batch_size=batch, shuffle=True, drop_last=True)

    def epoch() -> None:
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x.flatten(1)), y).backward()
            optimizer.step()

    return epoch


def interleave(contestants: dict[str, Epoch], rounds: int) -> dict[str, float]:
    """The median seconds of an epoch of each contestant, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, epoch in contestants.items():
            begin = time.perf_counter()
            epoch()
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Run every comparison and print, for each, the epoch times and their ratio to anyprop's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for sizes in ((784, 240, 240, 240, 10), (784, 500, 10)):
        contestants = {
            "anyprop": anyprop_epoch(ap.Backprop(), partial(ap.nets.mlp, *sizes), 100),
            "JAX by hand": jax_epoch(sizes, 100),
        }
        if torch:
            contestants["PyTorch by hand"] = torch_epoch(sizes, 100)
        results[f"backprop, {'-'.join(map(str, sizes))}, batch 100"] = interleave(contestants, options.rounds)
    for name, rule in {"feedback-alignment": ap.FeedbackAlignment(), "kolen-pollack": ap.KolenPollack()}.items():
        build = partial(ap.nets.mlp, 784, 500, 10)
        contestants = {
            "anyprop": anyprop_epoch(rule, build, 128),
            "its products alone": products_epoch((784, 500, 10), 128),
            "NumPy": numpy_epoch(name, 128, np.float64),
            "NumPy, float32": numpy_epoch(name, 128, np.float32),
        }
        if torch:
            contestants["PyTorch with a data loader"] = torch_loader_epoch(name, 128)
        results[f"{name}, 784-500-10, batch 128"] = interleave(contestants, options.rounds)
    contestants = {"anyprop": anyprop_epoch(ap.Backprop(), ap.nets.lenet5, 128)}
    if torch:
        contestants["PyTorch by hand"] = torch_lenet_epoch(128)
    results["backprop, LeNet-5, batch 128"] = interleave(contestants, max(options.rounds // 2, 1))
    build = partial(ap.nets.mlp, 784, 500, 10)
    seeds = {
        "one seed": anyprop_epoch(ap.Backprop(), build, 100),
        "ten seeds": anyprop_epoch(ap.Backprop(), build, 100, 10),
    }
    results["seeds in one program, 784-500-10, batch 100"] = interleave(seeds, max(options.rounds // 2, 1))

    for title, seconds in results.items():
        reference = next(iter(seconds.values()))
        print(title)
        for name, value in seconds.items():
            print(f"  {name:<28} {value:8.2f} s an epoch   {value / reference:6.2f} x {next(iter(seconds))}")
    if options.json:
        options.json.write_text(json.dumps({"versions": versions(), "seconds_per_epoch": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
