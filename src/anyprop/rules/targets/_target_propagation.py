"""Target propagation: each layer is given a value to take, found by inverting the layer above.

    t_{L-1} = h_{L-1} - eta dC/dh_{L-1},   t_{l-1} = g_l(t_l)
    f_l learns ||f_l(h_{l-1}) - t_l||^2,   f_L learns C
    g_l learns ||g_l(f_l(h_{l-1} + e)) - (h_{l-1} + e)||^2,   e ~ N(0, noise^2)

Source: Bengio 2014; the idea goes back to LeCun 1986.

Exact limit: with g_l = f_l^{-1} and small steps, t_{l-1} - h_{l-1} = J_l^{-1} (t_l - h_l): the Gauss-Newton
direction, and putting any t_l in the place of h_l lowers the cost.
"""

from typing import ClassVar

from ...contract import Card, Needs
from ...nets import Series
from ._layerwise import Activity
from ._rule import LayerTargets


class TargetPropagation(LayerTargets):
    """Target propagation: targets in the place of gradients, sent down through learned inverses.

    Use it to see why `DifferenceTargetPropagation` exists: an inverse that is not exact moves every target
    by its own error of reconstruction, and layers learn that error too. It is sound where layers can be
    inverted, as square ones with a smooth nonlinearity can.

    The optimizer moves the inverses, `learner.feedback`, beside the model. To give them a rate of their own,
    pass `optax.partition({"model": ..., "inverses": ...}, ("model", "inverses"))`.

    Args:
        target_step: eta, how far the last hidden layer's target lies down the cost's gradient, above 0.
        noise: standard deviation of the Gaussian noise on the inverses' training input, in the units of the
            activities, 0 or more.
        reduction: the cost that `target_step` multiplies the gradient of: the batch's `"mean"`, as published,
            with which an example's own step is `target_step` / batch size; or `"sum"`, each example's own.
        init_inverse: initialiser of the inverses' weights, by name (see `nets.initialiser`).
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.

    References:
        Bengio. How auto-encoders could provide credit assignment in deep networks via target propagation.
        arXiv:1407.7906, 2014.
    """

    card: ClassVar[Card] = Card(
        name="Target propagation",
        family="targets",
        needs=Needs.CHAIN,
        source=("bengio2014", "lecun1986"),
        dossier=("S25",),
        local=True,
        weight_transport=False,
        phases=2,
        derivatives=True,
        limit="the Gauss-Newton direction when g inverts f",
    )

    def down(self, g: Series, above: Activity, target: Activity, below: Activity) -> Activity:
        """Return t_{l-1} = g_l(t_l)."""
        del above, below
        return g(target)
