"""How rules let systems settle: by a name or by an object, and what they say where that does not come to rest."""

import json
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.cli._flags import hyperparameter_flags, parse_assignment
from anyprop.contract import hyperparameters
from anyprop.energies import (
    BacktrackingFlow,
    Convergent,
    Energy,
    FixedPoint,
    GradientFlow,
    Hopfield,
    Langevin,
    Noisy,
    ReadOut,
    Resistive,
    Root,
    SimulatedDevice,
    Sweeps,
)
from anyprop.rules import RULES
from anyprop.rules.equilibrium._rule import Phases
from anyprop.training._identity import parts

SETTLING = [rule for rule in RULES.values() if issubclass(rule, Phases)]
FAST = {"free_steps": 30, "tolerance": 1e-6}
BY_NAME = {
    "gradient-flow": (GradientFlow(30, 0.4, 1e-6), {"step_size": 0.4}),
    "fixed-point": (FixedPoint(30, 1e-6), {}),
    "sweeps": (Sweeps(30, 1e-6), {}),
}


def net(key):
    return ap.nets.mlp(4, 5, 3, activation="hard-sigmoid", output="hard-sigmoid", key=key)


def examples(key):
    return ap.Batch(jax.random.uniform(key, (6, 4)), jnp.arange(6) % 3)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_relaxation_by_name_is_the_object(name):
    relaxation, settings = BY_NAME[name]
    for kind in SETTLING:
        named, own = kind(relaxation=name, **FAST, **settings), kind(relaxation=relaxation)
        assert named.free_phase == own.free_phase == relaxation
        assert named.phase(7) == own.phase(7)
        assert named.phase(7).steps == 7


def test_both_give_the_same_numbers_and_an_energy_can_keep_its_own(x64, key):
    batch, settled = examples(key), Hopfield(net(key), relaxation=BacktrackingFlow(300, 0.8))
    named = ap.EquilibriumPropagation(relaxation="sweeps", free_steps=60, nudged_steps=60)
    same = ap.EquilibriumPropagation(relaxation=Sweeps(60), nudged_steps=60)
    kept = ap.EquilibriumPropagation(relaxation=settled.relaxation, nudged_steps=300)
    learners = [rule.init(settled, key=key) for rule in (named, same, kept)]
    assert eqx.tree_equal(*learners[:2])
    assert learners[2].model.relaxation == settled.relaxation

    @eqx.filter_jit
    def update(learners):
        return [r.credit(m, batch, key=key).grads[0].chain for r, m in zip((named, same, kept), learners, strict=True)]

    one, other, own = update(learners)
    assert eqx.tree_equal(one, other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), own, one)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"relaxation": "newton"}, (ValueError, TypeError), "relaxation"),
        (
            {"relaxation": Langevin()},
            TypeError,
            r"looks for a state at rest, such as energies\.FixedPoint\(\), not Lan",
        ),
        ({"relaxation": Noisy(Sweeps(), 0.1)}, TypeError, "not Noisy"),
        (
            {"relaxation": FixedPoint(), "free_steps": 7},
            ValueError,
            r"free_steps=7 .* pass energies\.FixedPoint\(steps=7",
        ),
        ({"relaxation": FixedPoint(), "tolerance": 0.1}, ValueError, r"pass energies\.FixedPoint\(tolerance=0\.1\)"),
        ({"relaxation": FixedPoint(), "step_size": 0.1}, ValueError, "step_size=0.1 .*; leave it out"),
    ],
)
def test_relaxations_of_no_use_and_arguments_that_one_would_leave_unheard_are_refused(settings, error, match):
    with pytest.raises(error, match=match):
        ap.EquilibriumPropagation(**settings)


def test_rules_that_look_at_single_steps_need_a_relaxation_that_has_them(key):
    stepwise = {rule.__name__ for rule in SETTLING if rule.stepwise}
    assert stepwise == {
        "BackpropThroughRelaxation",
        "ContinualEquilibriumPropagation",
        "EarlyInference",
        "HolomorphicEquilibriumPropagation",
    }
    for kind in SETTLING:
        if kind.stepwise:
            with pytest.raises(TypeError, match="repeats one step"):
                kind(relaxation=Root())
        else:
            kind(relaxation=Root())
    with pytest.raises(ValueError, match="backward_steps=20 must be at most the 7 steps of relaxation"):
        ap.rules.equilibrium.BackpropThroughRelaxation(relaxation=FixedPoint(7))


def test_an_object_is_told_in_settings_in_identities_and_not_asked_for_on_the_command_line():
    rule = ap.EquilibriumPropagation(relaxation=Root(first=FixedPoint(9)))
    told = json.loads(json.dumps(hyperparameters(rule)))
    assert told["relaxation"] == "Root(steps=20, tolerance=1e-05, first=FixedPoint(steps=9, tolerance=0.0))"
    assert told["loss"] == "SquaredError"
    identity = parts("rule", rule)
    assert identity["rule.relaxation.first.steps"] == "9"
    assert identity == parts("rule", ap.EquilibriumPropagation(relaxation=Root(first=FixedPoint(9))))
    assert identity != parts("rule", ap.EquilibriumPropagation(relaxation=Root(first=FixedPoint(8))))
    flags = hyperparameter_flags(ap.EquilibriumPropagation)
    assert flags(relaxation="sweeps").relaxation == "sweeps"
    assert parse_assignment("equilibrium-propagation.relaxation=sweeps")[2] == "sweeps"
    with pytest.raises(ValueError, match="no value of relaxation"):
        parse_assignment("equilibrium-propagation.relaxation=newton")


def told(rule, model, batch):
    """The metrics of a step as training hands them on."""
    learner = rule.init(model, key=jax.random.key(0))
    metrics = eqx.filter_jit(rule.credit)(learner, batch, key=jax.random.key(0)).metrics
    return {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize(
    "rule",
    [
        ap.rules.equilibrium.InitializedEquilibriumPropagation,
        ap.rules.equilibrium.BackpropThroughRelaxation,
        ap.rules.equilibrium.ImplicitDifferentiation,
    ],
)
def test_without_a_tolerance_rest_is_where_the_error_can_be_felt_over_drift(key, rule):
    batch = examples(key)
    metrics = told(rule(free_steps=21), net(key), batch)
    assert rule(free_steps=21).complaint(metrics) is None
    restless = {**metrics, "free_residual": 10.0}
    assert rule(free_steps=21).complaint(restless).endswith("pass more free_steps or a smaller step_size")
    own = rule(relaxation=FixedPoint(21)).complaint(restless)
    assert "within 21 steps:" in own
    assert own.endswith("pass more steps of relaxation")
    if rule is ap.rules.equilibrium.BackpropThroughRelaxation:  # through all steps it asks for no rest
        whole = rule(21, free_steps=21)
        assert whole.complaint(told(whole, net(key), batch) | {"free_residual": 10.0}) is None


def smooth(key):
    return ap.nets.mlp(4, 5, 3, activation="sigmoid", output="sigmoid", key=key)


@pytest.mark.parametrize(
    ("system", "first"),
    [
        (lambda key: Hopfield(net(key)), lambda _, error: error),
        (lambda key: Hopfield(smooth(key)), lambda s, error: error * jax.nn.sigmoid(s) * jax.nn.sigmoid(-s)),
        (lambda key: Convergent(smooth(key)), None),
        (lambda key: Resistive(4, 5, 3, key=key), None),
        (lambda key: ReadOut(Hopfield(net(key)), ap.nets.Dense(3, 3, key=key)), None),
    ],
    ids=["hopfield", "hopfield-sigmoid", "convergent-sigmoid", "resistive", "read-out"],
)
def test_a_nudge_is_first_felt_as_what_it_adds_to_the_velocities(x64, key, system, first):
    rule, batch, model = ap.EquilibriumPropagation(0.2, free_steps=2, nudged_steps=1), examples(key), system(key)
    metrics = told(rule, model, batch)
    model = rule.init(model, key=key).model
    rest = model.settle(batch.x).state

    def nudge(state):
        return 0.2 * rule.loss(model.output(state), batch.y)

    free, nudged = (model.dynamics(batch.x, pull).velocity(rest) for pull in (None, nudge))
    *below, last = (np.max(np.abs(b - a)) for a, b in zip(free, nudged, strict=True))
    np.testing.assert_allclose([*below, metrics["nudge_speed"]], [*(0 * v for v in below), last], rtol=1e-9)
    if first:
        error = 0.2 * (model.output(rest) - jax.nn.one_hot(batch.y, 3))
        np.testing.assert_allclose(last, np.max(np.abs(first(rest[-1], error))), rtol=1e-9)


def test_drift_that_hides_the_nudge_of_saturated_units_is_complained_of(x64, key):
    chain = eqx.tree_at(lambda c: c.stages[-1].bias, smooth(key), jnp.full(3, -5.0))
    rule = ap.EquilibriumPropagation(0.1, free_steps=40, step_size=0.1, variant="one-sided", network="convergent")
    complaint = rule.complaint(told(rule, chain, examples(key)))
    assert complaint.startswith("the free phase did not settle within 40 steps of 0.1")
    assert "the nudge first moves no unit faster than at" in complaint


def test_nudged_phases_are_looked_at_as_well():
    metrics = {"free_residual": 1e-4, "free_converged": 1.0, "nudged_residual": 0.3, "nudged_converged": 0.5}
    metrics["nudge_speed"] = 0.2
    remedy = "pass more nudged_steps or a smaller step_size, or a smaller"
    ep = ap.EquilibriumPropagation(nudged_steps=6)
    assert "within 6 steps of 0.5: the fastest unit of a batch still moved at 0.3" in ep.complaint(metrics)
    assert ep.complaint(metrics).endswith(f"{remedy} beta")
    assert ap.HolomorphicEquilibriumPropagation().complaint(metrics).endswith(f"{remedy} radius")
    assert ep.complaint(metrics | {"nudged_residual": 0.1}) is None
    exact = ap.EquilibriumPropagation(tolerance=1e-3)
    assert exact.complaint(metrics).startswith("50.00% of the nudged phases did not settle to tolerance=0.001")
    assert ap.HolomorphicEquilibriumPropagation(noise=0.1).complaint(metrics) is None


def test_a_device_is_not_told_to_change_what_it_does_not_hear_of(key):
    device = SimulatedDevice(Hopfield(net(key), relaxation=GradientFlow(1)), key=key)
    rule = ap.EquilibriumPropagation(free_steps=7, tolerance=1e-3)
    metrics = told(rule, device, examples(key))
    assert metrics["free_converged"] < 1
    assert rule.complaint(metrics) is None


class Cusp(Energy):
    """E = 1/2 s^2 - s (x . w) + |s|^(1/2), whose slope at its start is not finite."""

    w: jax.Array
    relaxation: GradientFlow = eqx.field(default_factory=GradientFlow)

    def energy(self, state, x):
        return jnp.sum(0.5 * state["s"] ** 2 - state["s"] * (x @ self.w) + jnp.sqrt(state["s"]), axis=1)

    def start(self, x):
        return {"s": jnp.zeros((len(x), 2)), "t": jnp.zeros((len(x), 1))}

    def output(self, state):
        return state["s"]


def test_an_energy_whose_slope_is_not_finite_is_named_and_no_learning_rate_is_blamed():
    x, y = np.ones((4, 3), np.float32), np.arange(4) % 2
    data = ap.data.load({"train": (x, y)})
    fit = partial(ap.fit, data=data, epochs=1, batch_size=2, progress=False, alignment=False)
    told = "step 1 of epoch 1; the state of the free phase is not finite, in layer 1: the slope.*the model is a Cusp"
    with pytest.raises(ap.Diverged, match=told):
        fit(ap.EquilibriumPropagation(), Cusp(jnp.ones((3, 2))))


@pytest.mark.parametrize("rule", [ap.EarlyInference, ap.InitializedEquilibriumPropagation, ap.PredictiveCoding])
def test_rules_that_take_less_than_any_energy_say_what(rule):
    assert rule.card.needs == "a chain, or one read as an energy"
    assert "no other energy" in " ".join(rule.__doc__.split())
    for bad in (Cusp(jnp.ones((3, 2))), eqx.nn.Linear(3, 2, key=jax.random.key(0))):
        with pytest.raises(TypeError, match=r"model is a .*; pass .*(energies\.Hopfield|ap\.nets\.mlp)") as refused:
            rule().init(bad, key=jax.random.key(0))
        assert "of your own" not in str(refused.value)
