"""Analytic continuation: a function written for real numbers, evaluated at complex ones.

    f(x) = a composition of sums, products, exponentials, ...  of real x
    f(z) = the same composition at complex z

A function that JAX traces as a composition of analytic operations has one continuation only, and evaluating those
operations at complex numbers is it. So neither energies nor losses nor layers need to know of complex numbers, and the
derivatives of a continued function are the continued derivatives.

What is not analytic is found on the way, and refused by name: a maximum, an absolute value, a comparison. There is one
exception: a value under `stop_gradient`, as the largest logit that a softmax subtracts before it takes exponentials,
is declared to be one that the result does not depend on. It is taken of the real part.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jaxtyping import Array

ANALYTIC = frozenset({
    "add", "add_any", "asin", "asinh", "atan", "atanh", "broadcast_in_dim", "concatenate", "conv_general_dilated",
    "convert_element_type", "copy", "cos", "cosh", "cumsum", "div", "dot_general", "dynamic_slice",
    "dynamic_update_slice", "exp", "expand_dims", "gather", "integer_pow", "log", "log1p", "logistic", "mul", "neg",
    "one_minus_square", "pad", "pow", "reduce_prod", "reduce_sum", "reduce_window_sum", "reshape", "rev", "rsqrt",
    "scatter-add", "select_n", "sin", "sinh", "slice", "split", "sqrt", "square", "squeeze", "sub", "tan", "tanh",
    "transpose",
})  # fmt: skip
"""Operations that have a complex form, which continues the real one."""


CALLS = frozenset({"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"})
"""Operations that evaluate a program of their own."""


class _Broken(NamedTuple):
    """A value of the real part only, and the operation that broke the continuation."""

    value: Array
    operation: str


def continuation(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return the analytic continuation of a real function to complex arguments.

    Args:
        f: a function of trees of real arrays. It may close over other arrays, which stay as they are.

    Raises:
        TypeError: on the call, when the result depends on an operation that is not analytic.
    """

    def continued(*arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments)
        real = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.real(a).dtype), arguments)
        closed, shapes = jax.make_jaxpr(f, return_shape=True)(*real)
        results = _evaluate(closed.jaxpr, closed.consts, leaves)
        for result in results:
            if isinstance(result, _Broken):
                raise TypeError(
                    f"{result.operation} has no analytic continuation, so there are no complex states: pass units that "
                    "are smooth everywhere and whose range is all numbers, such as tanh, sigmoid or "
                    "steep-sigmoid, mean or softmax pooling, and squared error or cross-entropy"
                )
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return continued


def _evaluate(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Evaluate a program at complex arguments."""
    values = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        operands = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        values.update(zip(equation.outvars, _apply(equation, operands), strict=True))
    return [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]


def _apply(equation: JaxprEqn, operands: list[Any]) -> list[Any]:
    """Evaluate one operation."""
    name, settings = equation.primitive.name, dict(equation.params)

    def bind(operands: Sequence[Any]) -> list[Any]:
        if name == "scatter-add":  # as an operation it carries its addition along, as a program of real numbers
            kept = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
            return [jax.lax.scatter_add(*operands, **{setting: settings[setting] for setting in kept})]
        results = equation.primitive.bind(*operands, **settings)
        return list(results) if equation.primitive.multiple_results else [results]

    if name in CALLS:
        called: ClosedJaxpr = settings.get("jaxpr") or settings["call_jaxpr"]
        return _evaluate(called.jaxpr, called.consts, operands)
    broken = next((v.operation for v in operands if isinstance(v, _Broken)), None)
    if broken is None and not any(jnp.iscomplexobj(v) for v in operands):
        return bind(operands)
    if broken is None and name in ANALYTIC:
        dtype = jnp.result_type(*(v for v in operands if jnp.iscomplexobj(v)))
        for setting in ("preferred_element_type", "new_dtype"):
            if settings.get(setting) is not None:
                settings[setting] = dtype
        # Indices and the like stay what they are, and so do conditions on real numbers.
        return bind(
            [jnp.asarray(v, dtype) if jnp.issubdtype(jnp.result_type(v), jnp.floating) else v for v in operands]
        )
    results = bind([v.value if isinstance(v, _Broken) else jnp.real(v) for v in operands])
    return results if name == "stop_gradient" else [_Broken(result, broken or name) for result in results]
