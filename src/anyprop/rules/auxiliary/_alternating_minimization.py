"""Online alternating minimisation: codes move first, then each layer learns to produce its own code.

    c_l = W_l sigma_{l-1}(c_{l-1}),  c_0 = x                                        encode
    c_L, ..., c_1: steps down problems (4) and (5), see `_codes`                    codes
    dW_{L+1} = d/dW  C(W sigma_L(c_L), y)                                           weights, each layer by itself
    dW_l     = d/dW  ||W sigma_{l-1}(c_{l-1}) - c_l||^2

with the moved codes on both sides, held constant. The update goes to any optimizer: SGD makes it AM-SGD,
Adam makes it AM-Adam.

Source: Choromanska, Cowen, Kumaravel, Luss, Rigotti, Rish, Diachille, Gurev, Kingsbury, Tejwani and
Bouneffouf 2019.

Exact limit: let s be the sum of the coefficients of a code's first gradient in its steps (1.9 for one step,
n steps of momentum 0.9 add up to more) times `code_rate`. As `code_rate` goes to zero, with
`reduction="sum"`, the update of layer l tends to (s / mu) 2 (2 s)^(L-l) times that of backprop, and the
output's to backprop's: every layer goes backprop's way, at a rate of its own. With one step of a rate that is not
small, but a large mu, the error of layer l > 1 comes out as (I - 2 s J J^T) times that, J the derivative of c_l by
c_{l-1}: the code below has moved too.
"""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ..._checks import non_negative
from ...contract import Batch, Card, Credit, DataInfo, Learner, Needs
from ...nets import Chain, affines
from ._codes import CodeRule, encode, shift


class AlternatingMinimization(CodeRule):
    """Online alternating minimisation (AM-SGD, AM-Adam): each layer learns from a code of its own.

    Use it where layers should learn apart from each other: once the codes have moved, no error passes
    between layers, and their weights can be updated in parallel. It trains dense and convolutional nets,
    Elman nets (a code for each time step) and nets with sign or step units, whose slope is one for the
    codes. With five code steps it costs about twice what backprop costs on a dense net, and about four times
    on LeNet-5 or an Elman net.

    The defaults make s = 1/2 and mu = 1: to first order a code's displacement reaches the layer below
    undiminished, at any depth, so that updates are of the size of backprop's and its rates suit them. They
    go backprop's way where layers do not stretch what they pass on. Wide layers do: Adam at 0.003 comes
    apart on 784-500-500-10, where backprop does not. There `code_rate=0.003` is safe: updates go
    backprop's way, each layer's a tenth of that above, of which Adam takes no notice.
    The published setting for dense nets is `reduction="mean", mu=0.003, code_rate=0.0015` with
    `optax.adam(0.008)`. There a code moves its neighbour below by a share of about 1 / width, and the distance
    shrinks layer by layer: below three or four layers, or wide convolutions, single precision loses it.

    Args:
        mu: weight of the distance between a code and what the layer below makes of it. The smaller, the
            further the codes follow the cost.
        code_steps: steps of each code.
        code_rate: step size of a code, down each example's own terms. The published code averages them
            over the batch and takes 0.3 for batches of 200, which is 0.0015 here, for any batch.
        code_sparsity: lambda, weight of the penalty |c|_1 on codes, of the norm that `reduction` makes.
        reduction: whether the norms of codes are a `"sum"` over a layer's units, as in the paper, or a
            `"mean"`, as in its code. In a net whose layers have n units the mean is the sum with mu,
            code_rate and code_sparsity divided by n.
        mu_increase: what each batch adds to mu; a learner's memory holds the present one.
        mu_max: where mu stops growing; published as 10 `mu`. Default: nowhere.
        weight_sparsity: weight of the penalty sum |W| on every layer's weights, not its biases. Hidden layers' own
            costs leave out the factor mu, so there it is in units of mu: in the one objective of codes and
            weights their penalty is mu times it, and grows with mu.
        loss: the cost, by name or as a `Loss`.

    Raises:
        ValueError: a number is out of its range, or `reduction` is unknown.

    References:
        Choromanska, Cowen, Kumaravel, Luss, Rigotti, Rish, Diachille, Gurev, Kingsbury, Tejwani &
        Bouneffouf. Beyond backprop: online alternating minimization with auxiliary variables. ICML, 2019.
    """

    weight_sparsity: float = eqx.field(default=0.0, kw_only=True)

    card: ClassVar[Card] = Card(
        name="Alternating minimisation",
        family="auxiliary",
        needs=Needs.CHAIN,
        source=("choromanska2019",),
        dossier=("S49", "S50", "S52"),
        local=True,
        weight_transport=True,
        phases=2,
        derivatives=True,
        limit="a multiple of backprop's update in each layer as code_rate goes to 0",
    )

    def __check_init__(self):
        """Refuse a penalty below zero."""
        non_negative("weight_sparsity", self.weight_sparsity)

    def init(self, model: PyTree, *, data: DataInfo | None = None, key: Key[Array, ""]) -> Learner:
        """Start mu where it is said to start."""
        del data, key
        model = self.accept(model)
        return Learner(model, memory=self.first_mu(model))

    def credit(self, learner: Learner, batch: Batch, *, key: Key[Array, ""]) -> Credit:
        """Return each layer's own gradient; `code_shift` says how far the codes moved, root mean square."""
        del key
        codes, known = self.move_codes(learner, batch)
        update = eqx.filter_grad(self.weight_problems)(learner.model, batch, codes)
        return dataclasses.replace(known, grads=(update, None))

    def move_codes(self, learner: Learner, batch: Batch) -> tuple[list[Float[Array, "batch ..."]], Credit]:
        """Return the moved codes, and the credit as far as it is known without the layers' updates."""
        mu = learner.memory
        codes, output = encode(learner.model, batch.x)
        moved = self.update_codes(learner.model, batch, codes, mu)
        loss = jnp.mean(self.loss(output, batch.y))
        metrics = {"mu": mu, "code_shift": shift(codes, moved)}
        return moved, Credit(loss, output, None, self.next_mu(mu), metrics)

    def weight_problems(self, model: Chain, batch: Batch, codes: list[Float[Array, "batch ..."]]) -> Float[Array, ""]:
        """The sum of what every layer minimises by itself."""
        # Without mu, which would only scale a hidden layer's update: so its penalty is in units of mu.
        penalty = sum(jnp.sum(jnp.abs(site.weight)) for site in affines(model))
        return self.objective(model, batch, codes, mu=1.0) + self.weight_sparsity * penalty
