"""An update read layer by layer: one vector a layer, and one for the whole network."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..nets import Chain, Site, sites

ALL = "all"
"""The name of the whole network among the names of its layers."""


def site_names(model: PyTree) -> list[str]:
    """Name the sites of a model by position and kind: `1 Conv`, `2 Dense`."""
    return [f"{position} {type(site).__name__}" for position, site in enumerate(sites(model), start=1)]


def by_layer(model: PyTree, update: PyTree) -> dict[str, Float[Array, " entries"]]:
    """Flatten an update into one vector a layer, and one for all of them.

    Args:
        model: the network.
        update: arrays laid out like the model's parameters: a gradient, or the model's part of a
            rule's `grads`.

    Returns:
        Weights and bias of each site of a chain in one vector, named as `site_names` does; for any
        other model each array by its path. Last, under `"all"`, everything in one vector.
    """
    if isinstance(model, Chain):
        named = dict(zip(site_names(model), sites(update), strict=True))
    else:
        leaves = jax.tree_util.tree_flatten_with_path(update)[0]
        named = {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}
    layers = {name: _vector(part) for name, part in named.items()}
    return {**layers, ALL: jnp.concatenate(list(layers.values()))}


def cosine(u: Float[Array, " entries"], v: Float[Array, " entries"]) -> Float[Array, ""]:
    """The cosine of the angle between two vectors; NaN if one of them is zero."""
    return jnp.vdot(u, v) / (jnp.linalg.norm(u) * jnp.linalg.norm(v))


def angle(u: Float[Array, " entries"], v: Float[Array, " entries"]) -> Float[Array, ""]:
    """The angle between two vectors in degrees, 0 to 180; NaN if one of them is zero.

    The arc cosine loses half of the digits near 0 and 180 degrees; this form (Kahan) loses none.
    """
    u, v = u / jnp.linalg.norm(u), v / jnp.linalg.norm(v)
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(u - v), jnp.linalg.norm(u + v)))


def _vector(part: Site | Array) -> Float[Array, " entries"]:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(part)])
