"""How probable are the states of a Boltzmann machine: annealed importance sampling of its partition function.

    p_beta(s) ~ exp(-(1 - beta) E_0(s) - beta E(s)),    E_0 without connections, so that Z_0 is known
    s_0 ~ p_0,    s_k ~ T_k(s_{k-1}),  a sweep of Gibbs sampling of p_{beta_k}
    w = prod_k exp(F_{k-1}(s_{k-1}) - F_k(s_{k-1})),    <w> = Z / Z_0

F is the energy with all units summed over that have a closed form, such as the hidden layer of a restricted machine.

Source: Neal 2001; Salakhutdinov and Murray 2008 for Boltzmann machines.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .._checks import count
from ..energies._boltzmann_machine import BoltzmannMachine, Groups, Machine, check_range


class LogPartition(NamedTuple):
    """An estimate of log Z.

    Args:
        value: log of the mean weight, times Z_0.
        standard_error: of `value`, from the spread of the weights. Where few chains carry all the weight it is too
            small, and so, very likely, is `value`.
        effective_chains: (sum w)^2 / sum w^2, how many chains carry the weight: between 1 and their number.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    effective_chains: Float[Array, ""]


def annealed_importance(
    machine: BoltzmannMachine,
    *,
    steps: int = 1000,
    chains: int = 100,
    betas: Float[Array, " temperatures"] | None = None,
    x: Float[Array, "examples visible"] | None = None,
    key: Key[Array, ""],
) -> LogPartition:
    """Estimate log Z, which turns what a machine can compute of data into their log-likelihood.

        ais = annealed_importance(machine, steps=10_000, x=x_train, key=key)
        log_likelihood = machine.evidence(x_test).mean() - ais.value

    For a restricted machine that is the log-likelihood itself; for a deep one a lower bound, by mean field. The
    estimate of Z is unbiased, that of log Z lies below it on average: then the log-likelihood looks too good. So
    compare estimates at several `steps`. For small machines, `energies.log_partition` is exact.

    Args:
        machine: the machine.
        steps: how many steps the inverse temperature takes from 0 to 1, all alike, at least 1.
        chains: independent runs, at least 2.
        betas: the inverse temperatures themselves, rising from 0 to 1, in the place of `steps`.
        x: data, between the lower and the upper state of the visible units: the machine at beta = 0 is given their
            means, which shortens the way. Default: the machine's own visible biases.
        key: random key.

    Raises:
        ValueError: a number is out of its range, x out of that of the visible units, or `betas` do not rise from 0
            to 1.

    References:
        Neal. Annealed importance sampling. Statistics and Computing, 2001.
        Salakhutdinov & Murray. On the quantitative analysis of deep belief networks. ICML 2008.
    """
    count("steps", steps)
    count("chains", chains, least=2)
    if betas is None:
        betas = jnp.linspace(0.0, 1.0, steps + 1)
    if betas[0] != 0 or betas[-1] != 1 or jnp.any(jnp.diff(betas) < 0):
        raise ValueError(f"betas must rise from 0 to 1, not from {betas[0]} to {betas[-1]} or with a step back")
    bias = None
    if x is not None:
        visible = machine.units[0]
        check_range(x, visible)
        two = 2 * visible.mean(jnp.zeros_like(x[0]))  # two made-up examples, lest a unit that never changes is certain
        bias = visible.field((jnp.sum(x, axis=0) + two) / (len(x) + 2))
    return _anneal(machine, machine.isolated(bias), betas, chains, key)


@eqx.filter_jit
def _anneal(
    machine: Machine, base: Machine, betas: Float[Array, " temperatures"], chains: int, key: Key[Array, ""]
) -> LogPartition:
    def at(beta: Float[Array, ""]) -> Machine:
        return jax.tree.map(lambda zero, one: (1 - beta) * zero + beta * one, base, machine)

    def step(carry: tuple[Groups, Array], now: tuple[Array, Array, Array]) -> tuple[tuple[Groups, Array], None]:
        (state, log_weight), (before, beta, key) = carry, now
        colder = at(beta)
        log_weight += at(before).free_energy(state) - colder.free_energy(state)
        return (colder.sweep(state, machine.groups, key), log_weight), None

    key_start, key_steps = jax.random.split(key)
    independent = base.fields(base.start(chains))  # without connections they do not depend on the state
    keys = jax.random.split(key_start, len(independent))
    start = [units.sample(a, k) for units, a, k in zip(base.units, independent, keys, strict=True)]
    log_z0 = sum(units.log_sum(a[0]) for units, a in zip(base.units, independent, strict=True))
    schedule = betas[:-1], betas[1:], jax.random.split(key_steps, len(betas) - 1)
    log_weight = jax.lax.scan(step, (start, jnp.zeros_like(start[0][:, 0])), schedule)[0][1]
    weight = jnp.exp(log_weight - jnp.max(log_weight))
    mean = jnp.mean(weight)
    return LogPartition(
        value=log_z0 + jnp.max(log_weight) + jnp.log(mean),
        standard_error=jnp.std(weight, ddof=1) / jnp.sqrt(chains) / mean,
        effective_chains=jnp.sum(weight) ** 2 / jnp.sum(weight**2),
    )
