"""Noise on activities: what node perturbation and the activity form of the forward gradient share.

    a~_l = map(h~_{l-1}, W_l, b_l) + xi_l,   h~_l = f(a~_l),   xi_l ~ N(0, I)

Every site of a chain gets a noise of its own, one draw for each example and unit.
"""

import jax
from jaxtyping import Array, Float, Key

from ..nets import Chain, Site, Wiring, wire


class Perturbed(Wiring):
    """Add noise to the site's pre-activation.

    Args:
        noise: xi, of the shape of the pre-activation.
    """

    noise: Float[Array, "batch ..."]

    def __call__(self, site: Site, h: Float[Array, "batch ..."]) -> tuple[Array, Array]:
        """Return a + xi and f(a + xi)."""
        a = site.drive(h) + self.noise
        return a, site.activation(a)


def perturb(model: Chain, noises: list[Float[Array, "batch ..."]]) -> Chain:
    """Return `model` with one noise added to the pre-activation of each of its `nets.sites`."""
    return wire(model, [Perturbed(noise) for noise in noises])


def drives(model: Chain, x: Float[Array, "batch ..."] | jax.ShapeDtypeStruct) -> list[jax.ShapeDtypeStruct]:
    """Return the shape and type of each site's pre-activation on the inputs `x`, without computing them.

    Raises:
        TypeError: a layer is recurrent, so that its sites act once a time step.
    """
    _, traces = jax.eval_shape(model.record, x)
    return [trace.drive for trace in traces]


def draw(model: Chain, x: Float[Array, "batch ..."], key: Key[Array, ""]) -> list[Float[Array, "batch ..."]]:
    """Return one standard normal noise for each site, of the shape of its pre-activation on `x`."""
    shapes = drives(model, x)
    keys = jax.random.split(key, len(shapes))
    return [jax.random.normal(k, s.shape, s.dtype) for k, s in zip(keys, shapes, strict=True)]
