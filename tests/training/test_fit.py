import contextlib
import dataclasses
import errno
import json
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jaxtyping
import numpy as np
import optax
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

import anyprop as ap
from anyprop.training import CheckpointError, _checkpoint, _identity, _lock


def blobs(n: int = 120, *, shape=(6,), validation: int = 40, test: int = 40, seed: int = 0) -> ap.data.Data:
    """Three Gaussian classes: learnable in a few steps."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n + validation + test).astype(np.int32)
    centres = rng.normal(size=(3, *shape)) * 2
    x = (centres[y] + rng.normal(size=(len(y), *shape))).astype(np.float32)
    cut = n + validation
    splits = {"train": (x[:n], y[:n]), "test": (x[cut:], y[cut:])}
    if validation:
        splits["validation"] = (x[n:cut], y[n:cut])
    return ap.data.load(splits)


build = partial(ap.nets.mlp, 6, 5, 3)
elman = partial(ap.nets.elman, 3, 5, 3, steps=4)
like_sgd = optax.GradientTransformation(
    lambda params: (), lambda grads, state, params=None: (jax.tree.map(lambda g: -g, grads), state)
)
quick = partial(ap.fit, optimizer=optax.sgd(0.1, momentum=0.9), batch_size=20, progress=False)


def timeless(run: ap.Run) -> list[dict]:
    drop = ("seconds", "steps_per_second", "cost/steps_per_second")
    return [{k: v for k, v in record.items() if k not in drop} for record in run.records]


def assert_same(one, other) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_rule_whose_update_is_a_whole_step_takes_it_whole_by_default():
    rule, options = ap.AlternatingMinimizationMemory(), {"batch_size": 20, "epochs": 1, "progress": False}
    default, whole, small = (
        ap.fit(rule, build, blobs(), optimizer=optimizer, **options)
        for optimizer in (None, optax.sgd(1.0), optax.sgd(0.1))
    )
    assert timeless(default) == timeless(whole) != timeless(small)
    names = ("optimizer", "learning_rate")
    assert [default.results["settings"][name] for name in names] == ["sgd", 1.0]
    assert [small.results["settings"].get(name) for name in names] == [["scale(step_size=-0.1)"], None]


def test_what_an_optimizer_holds_is_recorded_and_no_more():
    schedule = optax.cosine_decay_schedule(0.2, 50)
    parts = {"model": optax.adam(schedule), "inverses": optax.sgd(0.1, momentum=0.9)}
    steps = _identity.recipe(optax.chain(optax.clip_by_global_norm(3.0), optax.partition(parts, ("model", "inverses"))))
    for step in (
        "clip_by_global_norm(max_norm=3.0)",
        "model: scale_by_adam(b1=0.9, b2=0.999, ",
        "model: cosine_decay_schedule(alpha=0.0, decay_steps=50, exponent=1.0, init_value=0.2)",
        "inverses: trace(decay=0.9, ",
        "inverses: scale(step_size=-0.1)",
    ):
        assert any(each.startswith(step) for each in steps), step
    assert _identity.recipe(optax.GradientTransformation(lambda p: p, lambda g, s, p=None: (g, s))) == []


def test_a_closure_may_hold_a_name_without_a_value():
    staircase = optax.exponential_decay(0.1, 10, 0.5, staircase=True)  # its bound on the value, where there is none
    *_, last = _identity.recipe(optax.sgd(staircase))
    assert last.startswith("exponential_decay(decay_rate=0.5, init_value=0.1, staircase=True, ")
    assert _identity.text_of(staircase) != _identity.text_of(optax.exponential_decay(0.2, 10, 0.5, staircase=True))


def test_it_learns_and_records_every_epoch():
    run = quick(ap.Backprop(), build, blobs(), epochs=4, seeds=2)
    assert [(r["seed"], r["epoch"]) for r in run.records] == [(s, e) for s in (0, 1) for e in range(5)]
    last = run.records[-1]
    assert last["test_error"] < 0.2 < run.records[0]["test_error"]
    assert last["alignment/all"] < 0.1
    assert run.model is run.learners[0].model


def test_a_seed_among_several_ends_where_it_ends_alone():
    together = quick(ap.FeedbackAlignment(), build, blobs(), epochs=2, seeds=[3, 8])
    alone = quick(ap.FeedbackAlignment(), build, blobs(), epochs=2, seeds=[8])
    assert_same(together.learners[1], alone.learners[0])


def test_one_network_is_trained_as_it_is_and_redrawn_for_several_seeds(key):
    net, waits = build(key=key), optax.sgd(lambda step: 0.1 * (step > 1000))
    still = quick(ap.Backprop(), net, blobs(), epochs=1, optimizer=waits)
    assert_same(still.model, net)
    spread = quick(ap.Backprop(), net, blobs(), epochs=1, seeds=2, optimizer=waits)
    first, second = (learner.model.stages[0].weight for learner in spread.learners)
    assert not np.allclose(first, second)


def test_resume_ends_bit_identical(tmp_path):
    whole = quick(ap.FeedbackAlignment(), build, blobs(), epochs=4, seeds=2, patience=9, out=tmp_path / "a")

    def interrupt(end):
        if end.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(
            ap.FeedbackAlignment(), build, blobs(), epochs=4, seeds=2, patience=9, out=tmp_path / "b",
            callbacks=[interrupt],
        )  # fmt: skip
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"half a li')  # what a kill leaves behind
    resumed = quick(
        ap.FeedbackAlignment(), build, blobs(), epochs=4, seeds=2, patience=9, out=tmp_path / "b", resume=True
    )
    assert_same(whole.learners, resumed.learners)
    assert timeless(whole) == timeless(resumed)
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    assert_same(a, b)
    lines = [json.loads(line) for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["seed"]) for r in lines] == [(e, s) for e in range(5) for s in range(2)]


def test_resume_of_a_finished_run_trains_no_further(tmp_path):
    first = quick(ap.Backprop(), build, blobs(), epochs=2, out=tmp_path)
    again = quick(ap.Backprop(), build, blobs(), epochs=2, out=tmp_path, resume=True)
    assert_same(first.learners, again.learners)
    assert first.records == again.records


def contents(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("gone", [["checkpoint.safetensors"], ["checkpoint.safetensors", "results.json"]])
def test_resume_without_a_checkpoint_does_not_replace_what_another_run_found(gone, tmp_path):
    quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path)
    for name in gone:
        (tmp_path / name).unlink()
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="holds the results of an earlier run, and no checkpoint"):
        quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path)
    monkeypatch.undo()
    quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path, resume=True)
    assert (tmp_path / "results.json").exists()


def test_a_second_run_into_one_folder_is_refused_while_the_first_one_lasts(tmp_path):
    refused = []

    def second(end):
        before = contents(tmp_path)
        for resume in (False, True):
            with pytest.raises(BlockingIOError, match=f"^out='{tmp_path}' is in use by another run") as raised:
                quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path, resume=resume)
            refused.append(raised.value)
        assert contents(tmp_path) == before

    quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path, callbacks=[second])
    assert len(refused) == 2
    quick(ap.Backprop(), build, blobs(), epochs=2, out=tmp_path, resume=True)


def test_where_files_cannot_be_locked_a_run_goes_on_without(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unknown(*arguments):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with _lock.alone(tmp_path):
        pass


def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(_checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"checkpoint\.safetensors cannot be written \(.*No space left"):
        quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path)


FROZEN = {"model": optax.adam(1e-3), "feedback": optax.set_to_zero()}


@pytest.mark.parametrize(
    ("optimizer", "passes"),
    [
        (optax.sgd(0.0), False),
        (optax.sgd(-0.1), False),
        (optax.adamw(-0.1), False),
        (optax.sgd(float("nan")), False),
        (optax.sgd(float("inf")), False),
        (optax.set_to_zero(), False),
        (optax.adam(lambda step: 0.1 / step), False),
        (optax.sgd(1e-30), True),
        (optax.sgd(1e30), True),
        (optax.partition(FROZEN, ("model", "feedback")), True),
        (optax.partition(dict(zip(FROZEN, reversed(FROZEN.values()), strict=True)), ("model", "feedback")), True),
        (ap.training.in_turns(optax.sgd(0.1), optax.set_to_zero(), steps=50_000), True),
        (optax.sgd(optax.linear_schedule(0.0, 0.1, 100_000)), True),
        (optax.sgd(lambda step: 0.1 * (step >= 700)), True),
        (optax.sgd(lambda step: 0.1 * 2.0**step), True),
        (optax.chain(optax.clip_by_global_norm(1e-3), optax.lion(1e-3, weight_decay=0.5)), True),
        (optax.MultiSteps(optax.sgd(0.1), 100).gradient_transformation(), True),
        (optax.chain(optax.sgd(0.1), optax.apply_every(4)), True),
    ],
)
def test_an_optimizer_that_never_steps_downhill_is_refused(optimizer, passes, key):
    learner = ap.KolenPollack().init(build(key=key), key=key)
    expected = contextlib.nullcontext() if passes else pytest.raises(ValueError, match=r"^optimizer ")
    with expected:
        _identity.behaviour(optimizer, learner)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rule": ap.FeedbackAlignment()}, "rule"),
        ({"net": partial(ap.nets.mlp, 6, 4, 3)}, "model"),
        ({"net": partial(ap.nets.mlp, 6, 5, 3, activation="relu")}, r"model.stages\[0\].activation \(tanh, now relu\)"),
        ({"net": partial(ap.nets.mlp, 6, 5, 3, init="he-normal")}, r"model.* \(glorot-normal, now he-normal\)"),
        ({"data": blobs(seed=1)}, "data"),
        ({"batch_size": 30}, "batch_size"),
        ({"seeds": 2}, "seeds"),
        ({"data": blobs(100)}, r"train_size \(120, now 100\)"),
        ({"data": blobs(validation=0)}, r"validation \(40, now None\)"),
        (
            {"optimizer": optax.sgd(0.2, momentum=0.9)},
            r"optimizer \(scale\(step_size=-0.1\), now scale\(step_size=-0.2\)\)",
        ),
        ({"optimizer": like_sgd}, r"optimizer \(\['trace"),
        ({"optimizer": None}, r"optimizer \(\['trace.*, now adam\)"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(change, named, tmp_path):
    same = {"rule": ap.Backprop(), "net": build, "data": blobs(), "epochs": 1}
    quick(**same, out=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=f"another {named}") as raised:
        quick(**(same | change), out=tmp_path, resume=True)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < len(str(tmp_path)) + 300
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_checkpoint_of_another_function_is_refused_though_both_are_called_alike(tmp_path):
    def net(slope, scale):
        options = {"activation": lambda a: jax.numpy.maximum(a, slope * a), "init": jax.nn.initializers.normal(scale)}
        return partial(ap.nets.mlp, 6, 5, 3, **options)

    train = partial(quick, ap.Backprop(), data=blobs(), epochs=1, out=tmp_path)
    train(net(0.1, 0.5))
    for other, named in ((net(0.2, 0.5), "activation"), (net(0.1, 0.6), "init")):
        with pytest.raises(CheckpointError, match=rf"another model\.stages\[0\]\.{named} "):
            train(other, resume=True)
    train(net(0.1, 0.5), resume=True)


def functions():
    def recursive(a, times=2):
        return a if times == 0 else recursive(a / 2, times - 1)

    return [
        lambda a: jax.numpy.sin(a),
        lambda a: jax.numpy.cos(a),
        lambda a: 2 * a,
        lambda a, by=2: by * a,
        lambda a, by=3: by * a,
        lambda a: jax.vmap(lambda b: 3 * b)(a),
        lambda a: jax.vmap(lambda b: 4 * b)(a),
        recursive,
        jax.jit(lambda a: 5 * a),
        partial(jax.nn.leaky_relu, negative_slope=0.1),
        partial(jax.nn.leaky_relu, negative_slope=0.2),
        jax.nn.initializers.constant(np.arange(3)),
        jax.nn.initializers.constant(np.arange(1, 4)),
    ]


def test_a_function_is_told_from_others_and_not_from_itself_made_again():
    once, again = ([_identity.text_of(function) for function in functions()] for _ in range(2))
    assert once == again
    assert len(set(once)) == len(once)
    assert [_identity.text_of(f) for f in (jax.nn.relu, ap.nets.INITIALISERS["zeros"])] == ["relu", "zeros"]


@pytest.mark.parametrize(
    "schedule",
    [partial(optax.cosine_decay_schedule, 0.1), lambda end: optax.piecewise_constant_schedule(0.1, {end: 0.1})],
    ids=["cosine", "drop"],
)
def test_a_checkpoint_of_another_schedule_is_refused_though_both_begin_alike(schedule, tmp_path):
    train = partial(quick, ap.Backprop(), build, blobs(), out=tmp_path)
    train(epochs=1, optimizer=optax.adam(schedule(50_000)))
    with pytest.raises(CheckpointError, match="another optimizer"):
        train(epochs=2, optimizer=optax.adam(schedule(200_000)), resume=True)
    train(epochs=2, optimizer=optax.adam(schedule(50_000)), resume=True)


def without_sum(path) -> None:
    arrays = load_file(path)
    with safe_open(path, framework="numpy") as file:
        save_file(arrays, path, metadata={"anyprop": file.metadata()["anyprop"]})


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "incomplete"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40] + b"7" * 40), "SHA-256"),
        (lambda path: path.write_bytes(path.read_bytes().replace(rb"\"epoch\": 1", rb"\"epoch\": 0")), "SHA-256"),
        (without_sum, "sha256"),
        (lambda path: save_file({}, path), "None"),
        (lambda path: save_file({}, path, metadata={"anyprop": "{}"}), "sha256"),
        (lambda path: _checkpoint.save(path, (), {"epoch": 1}), "lacks identity, history"),
    ],
    ids=["cut", "array", "note", "no sum", "no note", "empty note", "other note"],
)
def test_a_damaged_checkpoint_is_refused(damage, why, tmp_path):
    quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    damage(path)
    with pytest.raises(CheckpointError, match=f"damaged .*{why}.*; remove it"):
        quick(ap.Backprop(), build, blobs(), epochs=2, out=tmp_path, resume=True)


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    class Explode(ap.Backprop):
        """Backprop whose loss is NaN from the tenth step on."""

        def credit(self, learner, batch, *, key):
            credit = super().credit(learner, batch, key=key)
            far = learner.memory > 8  # six steps an epoch: the third step of the second one
            loss = jax.numpy.where(far, jax.numpy.nan, credit.loss)
            return eqx.tree_at(
                lambda c: (c.loss, c.memory), credit, (loss, learner.memory + 1), is_leaf=lambda x: x is None
            )

        def init(self, model, *, data=None, key):
            return ap.Learner(model, memory=jax.numpy.zeros(()))

    with pytest.raises(ap.Diverged, match=r"explode \(seed 0\) became nan at step 4 of epoch 2") as raised:
        quick(Explode(), build, blobs(), epochs=4, out=tmp_path)
    assert "checkpoint.safetensors has the epoch before" in str(raised.value)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_weights_that_overflow_at_the_last_step_are_not_kept(tmp_path):
    class Burst(ap.Backprop):
        """Backprop whose update is infinite at the twelfth step, the last of the second epoch."""

        def init(self, model, *, data=None, key):
            return ap.Learner(model, memory=jax.numpy.zeros(()))

        def credit(self, learner, batch, *, key):
            credit = super().credit(learner, batch, key=key)
            scale = jax.numpy.where(learner.memory == 11, jax.numpy.inf, 1.0)
            grads = jax.tree.map(lambda g: g * scale, credit.grads)
            return ap.Credit(credit.loss, credit.output, grads, learner.memory + 1)

    with pytest.raises(ap.Diverged, match=r"a weight of burst .* at step 6 of epoch 2"):
        quick(Burst(), build, blobs(), epochs=4, out=tmp_path)
    assert all(np.isfinite(array).all() for array in load_file(tmp_path / "checkpoint.safetensors").values())


def test_early_stop_waits_for_the_validation_loss_and_returns_the_best():
    ends = []
    run = quick(
        ap.Backprop(), build, blobs(40), epochs=60, patience=3, optimizer=optax.sgd(1.0), callbacks=[ends.append]
    )
    losses = [r["validation_loss"] for r in run.records][1:]
    best = int(np.argmin(losses))
    assert len(losses) == min(best + 1 + 3, 60) < 60
    assert_same(run.learners[0], ends[best].learners[0])


def test_a_seed_that_stops_early_among_several_ends_as_it_ends_alone(tmp_path):
    train = partial(quick, ap.Backprop(), build, blobs(40), epochs=60, patience=1, optimizer=optax.sgd(1.0))

    def interrupt(end):
        if end.epoch == 3:
            raise KeyboardInterrupt

    together = train(seeds=4)
    with pytest.raises(KeyboardInterrupt):
        train(seeds=4, out=tmp_path, callbacks=[interrupt])
    resumed = train(seeds=4, out=tmp_path, resume=True)
    lengths = []
    for seed in range(4):
        alone = train(seeds=[seed])
        ended = alone.results["runs"][0]
        lengths.append(len(ended["epochs"]))
        assert ended["best_epoch"] == lengths[-1] - 1
        for run in (together, resumed):
            assert run.results["runs"][seed]["best_epoch"] == ended["best_epoch"]
            assert_same(run.learners[seed], alone.learners[0])
    assert_same(together.learners, resumed.learners)
    losses = np.array([[epoch["validation_loss"] for epoch in run["epochs"]] for run in together.results["runs"]])
    later = [losses[i, length:].min(initial=np.inf) < losses[i, :length].min() for i, length in enumerate(lengths)]
    assert any(later)  # a seed that finds a better learner after its own end


def test_the_summary_after_an_early_stop_is_that_of_the_returned_learners():
    data = blobs(40)
    run = quick(ap.Backprop(), build, data, epochs=60, seeds=3, patience=3, optimizer=optax.sgd(1.0))
    x, y = jax.numpy.asarray(data.split("test").x), data.split("test").y
    errors = [np.mean(np.argmax(each.model(x), axis=1) != y) for each in run.learners]
    last = [each["epochs"][-1]["test_error"] for each in run.results["runs"]]
    (record,) = ap.report.summary(run.results)
    assert record["test_error_mean"] == pytest.approx(np.mean(errors)) != pytest.approx(np.mean(last))


def test_a_seed_that_diverges_after_its_own_end_stops_nobody():
    key_of_the_first = jax.random.fold_in(jax.random.key(0), 1)

    class Late(ap.Backprop):
        """Backprop whose first seed gets no better after an epoch of two steps, and has no loss after three."""

        def init(self, model, *, data=None, key):
            first = jax.numpy.all(jax.random.key_data(key) == jax.random.key_data(key_of_the_first))
            return ap.Learner(model, memory=(jax.numpy.zeros(()), first))

        def credit(self, learner, batch, *, key):
            credit, (step, first) = super().credit(learner, batch, key=key), learner.memory
            loss = jax.numpy.where(first & (step >= 6), jax.numpy.nan, credit.loss)
            grads = jax.tree.map(lambda g: jax.numpy.where(first, jax.numpy.where(step < 2, g, -g), g), credit.grads)
            return ap.Credit(loss, credit.output, grads, (step + 1, first))

    train = partial(quick, Late(), build, blobs(40), epochs=6, patience=2, optimizer=optax.sgd(0.05))
    assert [run["best_epoch"] for run in train(seeds=2).results["runs"]] == [1, 6]
    with pytest.raises(ap.Diverged, match=r"seed 0"):
        train(patience=5)


def test_the_test_split_decides_nothing():
    data = blobs()
    other = dataclasses.replace(data, test=blobs(seed=5).test)
    one, two = (quick(ap.Backprop(), build, d, epochs=6, patience=2) for d in (data, other))
    assert_same(one.learners, two.learners)
    assert len(one.records) == len(two.records)


def test_a_callback_can_end_the_run():
    run = quick(ap.Backprop(), build, blobs(), epochs=9, callbacks=[lambda end: end.epoch == 2])
    assert run.records[-1]["epoch"] == 2


def test_convolutions_outside_the_scan_train_alike(monkeypatch):
    def net(*, key):
        k1, k2 = jax.random.split(key)
        stages = [ap.nets.Conv(1, 2, 3, stride=2, activation="tanh", key=k1), ap.nets.Flatten()]
        stages.append(ap.nets.Dense(8, 3, key=k2))
        return ap.nets.Chain(stages, input_shape=(4, 4, 1))

    data = blobs(shape=(4, 4, 1))
    looped = quick(ap.FeedbackAlignment(), net, data, epochs=2, seeds=2)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    whole = quick(ap.FeedbackAlignment(), net, data, epochs=2, seeds=2)
    for a, b in zip(timeless(looped), timeless(whole), strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(a["test_loss"], b["test_loss"], rtol=1e-4)
        np.testing.assert_allclose(a["alignment/1 Conv"], b["alignment/1 Conv"], rtol=1e-3)


def test_data_are_delivered_in_the_shape_of_the_net():
    data = blobs(shape=(4, 3))
    quick(ap.Backprop(), partial(ap.nets.mlp, 12, 3), data, epochs=1)
    quick(ap.Backprop(), elman, data, epochs=1)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "epochs must be"),
        ({"batch_size": -1}, ValueError, "batch_size must be"),
        ({"batch_size": 121}, ValueError, "more than the 120 training examples"),
        ({"seeds": 0}, ValueError, "seeds must be"),
        ({"seeds": [1, 1]}, ValueError, "each only once"),
        ({"patience": 0}, ValueError, "patience must be"),
        ({"patience": 2, "data": blobs(validation=0)}, ValueError, "validation"),
        ({"net": partial(ap.nets.mlp, 7, 3)}, ValueError, "do not fit"),
        ({"net": partial(ap.nets.mlp, 6, 2)}, ValueError, "labels from 0 to 2"),
        ({"resume": True, "out": None}, ValueError, "resume=True needs out"),
        ({"net": "784-10"}, TypeError, "model must be callable"),
        ({"net": lambda key: eqx.nn.Linear(6, 3, key=key), "rule": ap.FeedbackAlignment()}, TypeError, "from_equinox"),
        ({"net": eqx.nn.MLP(6, 3, 5, 1, key=jax.random.key(0))}, TypeError, "^net .* or pass equinox.filter_vmap"),
        ({"net": partial(elman, sequence=True), "data": blobs(shape=(4, 3))}, ValueError, r"^net .*\(4, 3\).* own"),
        ({"net": elman, "data": blobs(shape=(4, 3)), "rule": ap.DirectFeedbackAlignment()}, TypeError, "recurrence"),
        ({"net": elman, "data": blobs(shape=(4, 3)), "rule": ap.IndirectFeedbackAlignment()}, TypeError, "recurrence"),
        ({"net": elman, "data": blobs(shape=(4, 3)), "rule": ap.WeightMirror()}, TypeError, "recurrence"),
        ({"rule": "kolen-pollack"}, TypeError, r"^rule must be .* KolenPollack\(\), not 'kolen-pollack'"),
        ({"rule": ap.SignSymmetry}, TypeError, r"^rule must be .* SignSymmetry\(\), not <class"),
        ({"optimizer": "adam"}, TypeError, r"^optimizer must be .* optax.adam\(1e-3\), not 'adam'"),
        ({"optimizer": optax.adam}, TypeError, "^optimizer must be"),
        ({"data": "mnist"}, TypeError, r"^data must be .* ap.data.load\('mnist'\), not a str"),
        ({"data": (np.zeros((9, 6)), np.zeros(9))}, TypeError, "^data must be .* not a tuple"),
        ({"callbacks": print}, TypeError, r"^callbacks must be .* \[print\]"),
        ({"callbacks": ["print"]}, TypeError, "^callbacks must be"),
        ({"seeds": 2.5}, ValueError, "^seeds must be"),
        ({"seeds": (seed for seed in range(2))}, TypeError, "^seeds must be .* not a generator"),
        ({"settings": {"rates": np.ones(3)}}, TypeError, "^settings must hold .* type ndarray is not"),
        ({"settings": ["note"]}, TypeError, "^settings must be a mapping"),
        ({"optimizer": optax.sgd(0.0)}, ValueError, "^optimizer .* downhill"),
        ({"optimizer": optax.sgd(-0.1)}, ValueError, "^optimizer .* downhill"),
        ({"optimizer": optax.sgd(float("nan"))}, ValueError, "^optimizer .* not finite"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(change, error, match, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    good = {"rule": ap.Backprop(), "net": build, "data": blobs(), "epochs": 1, "out": tmp_path / "run"}
    with pytest.raises(error, match=match):
        quick(**(good | change))
    assert not (tmp_path / "run").exists()


def test_numbers_of_numpy_are_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    one, two = np.int64(1), np.int64(2)
    numbers: dict[str, Any] = {"epochs": one, "batch_size": np.int32(20), "patience": one, "seeds": two}
    run = quick(ap.Backprop(), build, blobs(40), **numbers, out=tmp_path)
    numbers |= {"epochs": two, "seeds": np.arange(2)}
    again = quick(ap.Backprop(), build, blobs(40), **numbers, out=tmp_path, resume=True)
    settings = json.loads((tmp_path / "results.json").read_text())["settings"]
    assert [settings[name] for name in ("epochs", "batch_size", "patience", "seeds")] == [2, 20, 1, [0, 1]]
    assert timeless(run)[0] == timeless(again)[0]


def test_a_rule_that_looks_at_its_model_s_numbers_in_init_is_trained():
    class Looks(ap.Backprop):
        """Backprop that asks for a weight that is not zero."""

        def init(self, model, *, data=None, key):
            assert float(np.abs(model.stages[0].weight).max()) > float(jax.random.uniform(key) * 0)
            return super().init(model, data=data, key=key)

    quick(Looks(), build, blobs(40), epochs=1)


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out="):
        quick(ap.Backprop(), build, blobs(), epochs=1, out=tmp_path / "file")
