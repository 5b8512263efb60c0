"""Relaxations by numerical libraries, for rest states to as many digits as the arithmetic has.

A state rests where nothing pulls it any more,

    g(s) = P(s + ds/dt) - s = 0,    P(s) the nearest state in the range of the units

which `Root` finds by Newton's method, and `Flow` as the end of ds/dt = g(s). Without a range g is the velocity itself.
With one, the flow stays in it, and still runs down an energy F: for ds/dt = -dF/ds, <dF/ds, g> <= -|g|^2.

Derivatives of the state at rest are those of the implicit function theorem, dg/ds ds + dg = 0, solved by GMRES.
"""

import abc
import importlib
from collections.abc import Callable
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import gmres
from jaxtyping import Array, Float, Int, Key, PyTree

from .._checks import positive
from ._relaxation import Dynamics, GradientFlow, Relaxation, Settled, State, ToRest, as_told, fastest, settled, speeds

Vector = Float[Array, " entries"]
Pull = Callable[[Vector], Vector]


class Solver(ToRest):
    """What both have in common: the batch is solved as one vector, and judged example by example."""

    @abc.abstractmethod
    def solve(self, pull: Pull, start: Vector) -> tuple[Vector, Int[Array, ""]]:
        """Return a root of `pull`, and in how many steps it was found."""

    def __check_init__(self):
        """Refuse a tolerance that is not above 0."""
        positive("tolerance", self.tolerance)

    def __call__(self, dynamics: Dynamics, start: State, *, key: Key[Array, ""] | None = None) -> Settled:
        """Relax a batch of systems; there is no noise, so the key goes unused."""
        del key

        def relax(pull: Pull, s: Vector) -> tuple[Vector, Float[Array, ""]]:
            s, steps = self.solve(pull, s)
            return s, as_told(steps)

        state, steps = implicit(dynamics, start, relax)
        still = speeds(state, target(dynamics, state))
        return settled(state, jnp.full_like(fastest(still), steps, int), still, self.tolerance)


class Root(Solver):
    """Newton's method, by Optimistix: a few steps to rest, once the state is near it.

    Newton's method goes to the nearest point where nothing pulls, be it a maximum of an energy, and far from any it
    goes astray: `first` has to bring the state near its rest. The linear systems are solved by GMRES, without a matrix.

    Args:
        steps: Newton steps at most, a positive number.
        tolerance: where to stop, and the `residual` up to which an example has converged; above 0, in units of the
            state per time constant. In single precision 1e-5 can be reached, in double precision 1e-12.
        first: what goes before.

    Raises:
        ValueError: a number is out of its range.
        ImportError: Optimistix is not installed; raised by a call.

    References:
        Rader, Lyons & Kidger. Optimistix: modular optimisation in JAX and Equinox. 2024.
    """

    steps: int = eqx.field(static=True, default=20)
    tolerance: float = eqx.field(static=True, default=1e-5)
    first: Relaxation = eqx.field(default_factory=lambda: GradientFlow(50))

    def __call__(self, dynamics: Dynamics, start: State, *, key: Key[Array, ""] | None = None) -> Settled:
        """Relax a batch of systems; `first` gets the key."""
        near = jax.lax.stop_gradient(self.first(dynamics, start, key=key).state)
        return super().__call__(dynamics, near)

    def solve(self, pull: Pull, start: Vector) -> tuple[Vector, Int[Array, ""]]:
        """Return where Newton's method ends, and after how many steps."""
        optimistix, lineax = _library("optimistix"), _library("lineax")
        tolerances = {"rtol": self.tolerance, "atol": self.tolerance}
        newton = optimistix.Newton(**tolerances, linear_solver=lineax.GMRES(**tolerances))
        found = optimistix.root_find(lambda s, _: pull(s), newton, start, max_steps=self.steps, throw=False)
        return found.value, found.stats["num_steps"]


class Flow(Solver):
    """Gradient flow in continuous time, by Diffrax: as `GradientFlow`, with steps as long as accuracy allows.

    Use it to know where the dynamics of a system lead, whatever the step size, or where no step size is known to be
    short enough. All examples of a batch move by the same steps.

    Args:
        steps: steps at most, a positive number.
        tolerance: a batch has settled once none of its units moves faster than this, in units of the state per time
            constant; above 0. In single precision 1e-5 can be reached, in double precision 1e-12.

    Raises:
        ValueError: a number is out of its range.
        ImportError: Diffrax is not installed; raised by a call.

    References:
        Kidger. On neural differential equations. Doctoral thesis, University of Oxford, 2021.
    """

    steps: int = eqx.field(static=True, default=1000)
    tolerance: float = eqx.field(static=True, default=1e-5)

    def solve(self, pull: Pull, start: Vector) -> tuple[Vector, Int[Array, ""]]:
        """Return where Tsitouras's method of order 5 ends, and after how many steps."""
        diffrax = _library("diffrax")

        def settled(t: Array, s: Vector, args: object, **rest: object) -> Array:
            del t, args, rest
            return jnp.max(jnp.abs(pull(s))) <= self.tolerance

        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, s, args: pull(s)),
            diffrax.Tsit5(),
            t0=0.0,
            t1=jnp.inf,
            dt0=None,
            y0=start,
            # Near rest, steps grow until the error stops them: it has to do so well below the tolerance.
            stepsize_controller=diffrax.PIDController(rtol=0.01 * self.tolerance, atol=0.01 * self.tolerance),
            event=diffrax.Event(settled),
            max_steps=self.steps,
            throw=False,
        )
        return found.ys[-1], found.stats["num_steps"]


def target(dynamics: Dynamics, state: State) -> State:
    """P(s + ds/dt), which is s at rest."""
    return dynamics.project(jax.tree.map(jnp.add, state, dynamics.velocity(state)))


def implicit(
    dynamics: Dynamics, start: State, relax: Callable[[Pull, Vector], tuple[Vector, PyTree]]
) -> tuple[State, PyTree]:
    """What `relax` finds from a start, and what it tells besides, with the derivatives of a state at rest."""
    begin, unflatten = ravel_pytree(start)

    def pull(s: Vector) -> Vector:
        return ravel_pytree(target(dynamics, unflatten(s)))[0] - s

    end, told = jax.lax.custom_root(pull, begin, relax, _linear, has_aux=True)
    return unflatten(end), told


def _linear(operator: Callable[[Vector], Vector], right: Vector) -> Vector:
    """The solution v of operator(v) = right, transposed for backward derivatives."""
    tolerance = float(jnp.finfo(right.dtype).eps) ** 0.75

    def solve(operator: Callable[[Vector], Vector], right: Vector) -> Vector:
        wide = jnp.promote_types(right.dtype, jnp.float32)  # GMRES knows no half precision

        def widened(v: Vector) -> Vector:
            return operator(v.astype(right.dtype)).astype(wide)

        return gmres(widened, right.astype(wide), tol=tolerance)[0].astype(right.dtype)

    return jax.lax.custom_linear_solve(operator, right, solve, solve)


def _library(name: str) -> ModuleType:
    """An optional library, or how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        raise ImportError(f"this relaxation needs {name}; install it with pip install 'anyprop[solvers]'") from missing
