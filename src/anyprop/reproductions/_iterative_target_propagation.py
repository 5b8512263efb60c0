"""Iterative target propagation on MNIST: a generative model learned by EM, and a classifier (Bengio et al. 2015).

1. Unsupervised: h_1 of 1000 softplus units, h_2 of 100 sigmoid ones, 20 epochs in batches of 100, pixels in
   [0, 1]. The likelihood log p(x, h) of test images rises over 20 iterations of inference. Samples are scored by
   the Parzen estimate, sigma = 0.2: log p of the test set under windows around 10,000 samples. "GENERATE" draws
   h_2, decodes it, and infers and reconstructs three times; "directed" decodes only.
2. Supervised: the same inference between x and y, in a 784-500-500-10 stack of tanh units.

Not published, and chosen here: the optimizer (Adam) and its rate, the noise, the units of the ways down, and
all of the supervised stack, whose activities move less than the rule's defaults say.
Inference weighs both densities alike (alpha = delta = 0.1), as an ascent on their sum does. With the published
alpha = 0.001 the sum falls, and h_1 grows from epoch to epoch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from .. import data, nets
from ..diagnose import parzen_log_likelihood
from ..rules.targets import IterativeTargetPropagation, TargetPropagationEM
from ..training import fit
from ._reproduction import Claim, Options, Reproduction

RATES = {"generative": 1e-4, "supervised": 1e-3}
"""Learning rates. At 1e-3 the generative model's h_1 grows faster than its ways learn to undo each other."""

SIGMA = 0.2
SAMPLES = 10_000
ITERATIONS = 20


def auto_encoder(*, key: Key[Array, ""]) -> nets.Chain:
    """The ways up and down between 784 pixels, 1000 softplus units and 100 sigmoid units."""
    sizes = (784, 1000, 100, 1000, 784)
    units = ("softplus", "sigmoid", "softplus", "sigmoid")
    keys = jax.random.split(key, len(units))
    layers = zip(sizes, sizes[1:], units, keys, strict=False)
    return nets.Chain([nets.Dense(n, m, activation=unit, key=k) for n, m, unit, k in layers])


def classifier(*, key: Key[Array, ""]) -> nets.Chain:
    """The stack between pixels and classes."""
    return nets.mlp(784, 500, 500, 10, activation="tanh", key=key)


def run(options: Options) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Train both networks; look at the inference and the samples of the first and at the errors of the second."""
    mnist = data.load("mnist")
    x, test = (pixels(mnist, split) for split in (mnist.train, mnist.test))
    on_device = jnp.asarray(x), jnp.asarray(test)
    rule = TargetPropagationEM()
    training = {
        "epochs": options.epochs or REPRODUCTION.epochs,
        "batch_size": 100,
        "seeds": options.seeds or REPRODUCTION.seeds,
        "resume": options.resume,
        "settings": {"optimizer": "adam", "learning_rate": RATES},
    }
    generative = fit(
        rule,
        auto_encoder,
        data.load("mnist", reconstruct=True),
        optimizer=optax.adam(RATES["generative"]),
        alignment=False,
        out=options.out / "generative",
        **training,
    )
    found = [
        judge(rule, learner.model, *on_device, jax.random.key(seed)) for seed, learner in enumerate(generative.learners)
    ]
    two_way = IterativeTargetPropagation(rate=0.03, noise=0.03)
    supervised = fit(
        two_way,
        classifier,
        mnist,
        optimizer=optax.adam(RATES["supervised"]),
        out=options.out / "supervised",
        **training,
    )

    measured = {name: [float(values[name]) for values, _ in found] for name in found[0][0]}
    measured["supervised test error"] = [100 * seed["epochs"][-1]["test_error"] for seed in supervised.results["runs"]]
    itself = parzen_log_likelihood(on_device[0][:SAMPLES], on_device[1], sigma=SIGMA)
    details = {
        "settings": {"generative": generative.results["settings"], "supervised": supervised.results["settings"]},
        "joint_log_likelihood": [np.asarray(trace).tolist() for _, trace in found],
        "parzen_of_training_images": float(itself.mean()),
    }
    return measured, details


def pixels(mnist: data.Data, split: data.Split | None) -> Float[np.ndarray, "n 784"]:
    """All images of a split, flat and in [0, 1]."""
    assert split is not None
    return np.asarray(mnist.shaped((784,)).transform(split.x))


@eqx.filter_jit
def judge(
    rule: TargetPropagationEM, model: nets.Chain, x: Array, test: Array, key: Key[Array, ""]
) -> tuple[dict[str, Float[Array, ""]], Float[Array, " states"]]:
    """The claims' values for one trained model, and the course of log p(x, h) on the test set."""
    longer = TargetPropagationEM(iterations=ITERATIONS, rate=rule.rate, prior_rate=rule.prior_rate)
    _, trace = longer.infer(model, test)
    prior = rule.top_prior(model, x)

    def score(rounds: int) -> Float[Array, ""]:
        drawn = rule.generate(model, prior, examples=SAMPLES, rounds=rounds, key=key)
        return jnp.mean(parzen_log_likelihood(drawn, test, sigma=SIGMA))

    found = {
        "joint log-likelihood before inference less after": trace[0] - trace[-1],
        "iterations in which the joint log-likelihood falls": 100 * jnp.mean(jnp.diff(trace) <= 0),
        "Parzen log-likelihood of GENERATE": score(3),
        "Parzen log-likelihood of directed samples": score(0),
    }
    return found, trace


REPRODUCTION = Reproduction(
    name="iterative-target-prop",
    title="Iterative target propagation: MNIST generated by EM, 784-1000-100, and classified from both sides",
    source=("bengio2015",),
    claims=(
        Claim("joint log-likelihood before inference less after", 0.0, "nats", 0.0, "paper", at_most=True),
        Claim("iterations in which the joint log-likelihood falls", 0.0, "%", 0.0, "paper", at_most=True),
        Claim("Parzen log-likelihood of GENERATE", 236.0, "nats", 10.0, "paper"),
        Claim("Parzen log-likelihood of directed samples", 126.0, "nats", 10.0, "paper"),
        Claim("supervised test error", 5.0, "%", 0.0, "own target", at_most=True),
    ),
    epochs=20,
    seeds=1,
    minutes=60.0,
    run=run,
    guess=(
        "Of the generative model, neither noise nor optimizer nor the units of the ways down are published. In "
        "the classifier what explains x moves the hidden activities long after the answers fit, so that they "
        "learn to reconstruct rather than to tell classes apart."
    ),
)
