"""Each check of the kit catches the defect it is there for: rules broken on purpose, one a defect."""

import dataclasses
import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anyprop as ap
from anyprop.contract import exact_gradient
from anyprop.nets import local_update, sites
from anyprop.testing import CHECKS, Case, check, conformance
from anyprop.testing._case import case, small_mlp


class Sound(ap.Backprop):
    """Backprop under another name.

    Args:
        loss: the cost.

    References:
        None.
    """


def edited(change):
    """Backprop whose layers' gradients `change` has gone over, first to last."""

    class Edited(Sound):
        def credit(self, learner, batch, *, key):
            credit = super().credit(learner, batch, key=key)
            stages = tuple(change(list(credit.grads[0].stages), key))
            return eqx.tree_at(lambda c: c.grads[0].stages, credit, stages)

    return Edited()


def nothing(part):
    return jax.tree.map(jnp.zeros_like, part)


def noise(part, key):
    return jax.tree.map(lambda g: jax.random.normal(key, g.shape, g.dtype), part)


def fails(rule, name, match, **options):
    with pytest.raises(AssertionError, match=match):
        check(rule, name, **options)


def test_zero_hidden_updates():
    rule = edited(lambda stages, key: [*map(nothing, stages[:-1]), stages[-1]])
    check(rule, "loss_falls")  # the output learns by itself, which is why this went unseen
    fails(rule, "every_layer_learns", "1 Dense is zero")


def test_hidden_updates_that_are_noise():
    fails(edited(lambda s, key: [noise(s[0], key), *s[1:]]), "every_layer_learns", "1 Dense .* not positive")


def test_hidden_updates_that_point_the_wrong_way():
    rule = edited(lambda stages, key: [jax.tree.map(jnp.negative, stages[0]), *stages[1:]])
    fails(rule, "every_layer_learns", "1 Dense has a mean cosine of -1")


def test_a_layer_left_out_of_deep_nets_only():
    rule = edited(lambda s, key: [*s[:3], nothing(s[3]), *s[4:]] if len(s) > 4 else s)
    fails(rule, "all_parameters_move", r"stages\[3\].weight as it was, in a net of depth 8")


def test_an_ascending_rule():
    fails(edited(lambda stages, key: [jax.tree.map(jnp.negative, s) for s in stages]), "loss_falls", "goes from")


def test_a_key_used_twice():
    fails(edited(lambda s, key: [noise(s[0], key), noise(s[1], key), *s[2:]]), "keys_are_used_once", "twice")


class TwiceInInit(Sound):
    def init(self, model, *, data=None, key):
        same = [jax.random.normal(key, (2,)), jax.random.normal(key, (3,))]
        return ap.Learner(self.accept(model), memory=same)


def test_a_key_used_twice_in_init():
    fails(TwiceInInit(), "keys_are_used_once", "twice")


def test_randomness_that_does_not_come_from_the_key():
    generator = np.random.default_rng(0)

    def roll(stages, key):
        del key
        return [jax.tree.map(lambda g: g * generator.uniform(), s) for s in stages]

    fails(edited(roll), "jit_equals_eager", "differs")


class DeadArgument(Sound):
    """A rule with arguments that do nothing.

    Args:
        rate: read.
        decay: never read.
        mode: read.
        loss: the cost.
    """

    rate: float = 1.0
    decay: float = 0.9
    mode: Literal["plain", "double"] = eqx.field(default="plain", static=True)

    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        if self.mode == "double":
            credit = eqx.tree_at(lambda c: c.grads, credit, jax.tree.map(lambda g: self.rate * 2 * g, credit.grads))
        return credit


def test_an_argument_that_does_nothing():
    # `rate` acts in one mode only, and is not blamed.
    fails(DeadArgument(), "hyperparameters_matter", "^decay")


def test_arguments_without_checks():
    fails(DeadArgument(), "bad_input", "rate=nan")


class Checked(DeadArgument):
    def __check_init__(self):
        for name in ("rate", "decay"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite")


def test_negative_numbers_without_a_word_on_them():
    fails(Checked(), "bad_input", "rate=-1.0")


def test_an_argument_without_documentation():
    class Silent(Sound):
        """A rule.

        Args:
            loss: the cost.

        References:
            None.
        """

        rate: float = 1.0

    fails(Silent(), "card", "does not document rate")


def test_a_card_without_a_source():
    class Untraced(Sound):
        """A rule.

        Args:
            loss: the cost.

        References:
            None.
        """

        card: ClassVar = dataclasses.replace(ap.Backprop.card, source=())

    fails(Untraced(), "card", "source")


class OneReward(ap.Backprop):
    """Node perturbation that gives the batch's mean change of cost to every example."""

    own: bool = False

    def credit(self, learner, batch, *, key):
        model, sigma = learner.model, 1e-3
        output, traces = model.record(batch.x)
        cost = self.loss(output, batch.y)
        keys = jax.random.split(key, len(traces))
        xi = [jax.random.normal(k, t.drive.shape, t.drive.dtype) for k, t in zip(keys, traces, strict=True)]
        h = batch.x
        for site, x in zip(sites(model), xi, strict=True):
            h = site.activation(site.drive(h) + sigma * x)
        rise = (self.loss(h, batch.y) - cost) / sigma
        rise = rise if self.own else jnp.mean(rise) * jnp.ones_like(rise)
        updates = [
            local_update(site, t.input, rise[:, None] * x / len(rise))
            for site, t, x in zip(sites(model), traces, xi, strict=True)
        ]
        return ap.Credit(jnp.mean(cost), output, (ap.nets.assemble(model, updates), None))


def test_one_reward_for_a_whole_batch():
    check(OneReward(own=True), "duplication_keeps_the_mean")
    fails(OneReward(own=False), "duplication_keeps_the_mean", "twice")


class SumOverExamples(Sound):
    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        return eqx.tree_at(lambda c: c.grads, credit, jax.tree.map(lambda g: g * len(batch.x), credit.grads))


def test_a_sum_over_examples():
    fails(SumOverExamples(), "duplication_keeps_the_mean", "the batch twice over")


class WeakMemory(Sound):
    """A rule whose memory is a Python number's type at first and an array's later."""

    def init(self, model, *, data=None, key):
        return ap.Learner(self.accept(model), memory=jnp.asarray(1.0))

    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        return eqx.tree_at(lambda c: c.memory, credit, learner.memory * jnp.ones((), batch.x.dtype))


def test_a_rule_that_is_compiled_at_every_step():
    fails(WeakMemory(), "one_compilation", "compiled again")


class ForgetfulMemory(WeakMemory):
    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        return eqx.tree_at(lambda c: c.memory, credit, credit.memory.astype(jnp.float32))


def test_memory_of_another_type():
    fails(ForgetfulMemory(), "structure", "memory must be laid out")


class PythonCounter(Sound):
    """A rule that counts its steps in Python, so that a compiled loop sees the first one only."""

    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        calls.append(None)
        return eqx.tree_at(lambda c: c.grads, credit, jax.tree.map(lambda g: g / len(calls), credit.grads))


calls: list[None] = []


def test_state_that_only_python_can_carry():
    fails(PythonCounter(), "transforms_equal_loop", "differs")


class AnotherLoss(Sound):
    def credit(self, learner, batch, *, key):
        credit = super().credit(learner, batch, key=key)
        return eqx.tree_at(lambda c: c.output, credit, 2 * credit.output)


def test_a_loss_of_another_output():
    fails(AnotherLoss(), "structure", "mean cost of credit.output")


def test_numbers_that_are_not_finite():
    rule = edited(lambda stages, key: [jax.tree.map(lambda g: g / 0, stages[0]), *stages[1:]])
    fails(rule, "structure", "not finite")


class Anything(Sound):
    def accept(self, model):
        return model


def test_a_rule_that_takes_any_model():
    fails(Anything(), "bad_input", "refuse a string")


def test_below_hard_units_an_update_has_only_to_be_there():
    def through(stages, key):
        del key
        return [jax.tree.map(jnp.ones_like, s) for s in stages[:-1]] + stages[-1:]

    def signs(key, depth):
        return small_mlp(key, depth, activation="sign")

    check(edited(through), "every_layer_learns", model=signs)
    fails(Sound(), "every_layer_learns", "1 Dense is zero", model=signs)


def test_conformance_is_a_test_with_one_case_a_check():
    test = conformance(Sound())
    (mark,) = test.pytestmark
    assert mark.args == ("name", CHECKS)
    test("card")
    with pytest.raises(AssertionError, match="refuse a string"):
        conformance(Anything())("bad_input")


def test_what_cannot_apply_is_skipped_with_its_reason():
    with pytest.raises(pytest.skip.Exception, match="one depth only"):
        conformance(Sound(), depths=())("all_parameters_move")


def test_checks_by_name():
    with pytest.raises(ValueError, match="loss_falls"):
        check(Sound(), "loss_fall")


def test_a_model_that_is_no_chain_needs_its_own_batch():
    def linear(key, depth):
        del depth
        return eqx.nn.Linear(3, 2, key=key)

    with pytest.raises(TypeError, match="batch="):
        check(Sound(), "structure", model=linear)


def test_training_measures_what_it_says():
    """At the first step, the recorded norms and cosines are those of the untrained learners."""
    subject = case(edited(lambda stages, key: [jax.tree.map(lambda g: -3 * g, stages[0]), *stages[1:]]))
    with jax.enable_x64(True):
        training = subject.training
        learner, batch = subject.learner(2), subject.examples()
        loss, _, gradient = exact_gradient(subject.rule.loss, learner.model, batch)
        first = float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient.stages[0]))))
    np.testing.assert_allclose(training.losses[:, 2, 0], loss, rtol=1e-6)
    np.testing.assert_allclose(training.gradients["1 Dense"][:, 2, 0], first, rtol=1e-6)
    np.testing.assert_allclose(training.moves["1 Dense"][:, 2, 0], 3 * first, rtol=1e-6)
    np.testing.assert_allclose(training.cosines["1 Dense"][:, 2, 0], -1, rtol=1e-6)


def test_every_check_has_a_docstring_that_says_what_it_guards_against():
    assert all("Guards against" in (function.__doc__ or "") for function in CHECKS.values())
    assert Case.__doc__
