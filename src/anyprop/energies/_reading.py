"""Chains read as something else: what takes the chain's inputs and gives its outputs."""

import equinox as eqx

from ..nets import Chain


class Reading(eqx.Module):
    """A system that is a view of a chain, with its inputs and outputs."""

    chain: eqx.AbstractVar[Chain]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self.chain.input_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one prediction, without the batch axis."""
        return self.chain.output_shape
