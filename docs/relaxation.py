"""Draw the picture of a relaxation for the docs: `python docs/relaxation.py` writes `docs/images/relaxation.png`.

A Hopfield network, trained for one pass over 5,000 images, settles on a test image and is then nudged to its label.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import anyprop as ap

FREE, NUDGED, BETA, STEP = 30, 20, 1.0, 0.3
PICTURE = Path(__file__).parent / "images" / "relaxation.png"


def trained() -> tuple[ap.energies.Hopfield, ap.data.Data]:
    """A network that has learned a little."""
    data = ap.data.load("mnist", train_size=5000)
    units = {"activation": "hard-sigmoid", "output": "hard-sigmoid", "init": "glorot-uniform"}
    net = ap.nets.mlp(784, 200, 10, **units, key=jax.random.key(0))
    rule = ap.EquilibriumPropagation(beta=1.0, variant="random-sign", free_steps=30, nudged_steps=8)
    run = ap.fit(rule, net, data, optimizer=optax.sgd(0.1), epochs=1, batch_size=20, alignment=False)
    return run.model, data


def steps(model: ap.energies.Hopfield, x: jax.Array, y: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """The outputs and the energy after each step, (steps + 1, 10) and (steps + 1,)."""
    step = ap.energies.GradientFlow(1, STEP)
    loss = ap.losses.SquaredError()
    state, outputs, energies = model.start(x), [], []
    for t in range(FREE + NUDGED + 1):
        outputs.append(model.output(state)[0])
        energies.append(model.energy(state, x)[0])
        nudge = (lambda state: BETA * loss(model.output(state), y)) if t >= FREE else None
        state = model.settle(x, state, nudge=nudge, relaxation=step).state
    return np.asarray(outputs), np.asarray(energies)


def main() -> None:
    """Train, settle on the image whose answer is least sure, and draw."""
    model, data = trained()
    flat = data.shaped(model.input_shape)
    x, labels = flat.transform(flat.test.x[:200]), flat.test.y[:200]
    label = jnp.asarray(labels)
    unsure = int(jnp.argmin(model(x)[jnp.arange(200), label]))
    outputs, energies = steps(model, x[unsure : unsure + 1], label[unsure : unsure + 1])
    time = np.arange(len(energies)) * STEP
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    for unit, line in enumerate(outputs.T):
        color, width, name = ("C0", 2, "the label") if unit == int(labels[unsure]) else ("0.7", 1, None)
        above.plot(time, line, color=color, lw=width, label=name)
    above.set_ylabel("output units")
    above.legend(frameon=False)
    below.plot(time, energies, color="C1", lw=2)
    below.set(xlabel="time, in time constants of a unit", ylabel="energy E")
    for axes in (above, below):
        axes.axvspan(FREE * STEP, time[-1], color="0.95")
        axes.spines[["top", "right"]].set_visible(False)
    above.set_title("free phase", loc="left")
    above.set_title("nudged", loc="right")
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
