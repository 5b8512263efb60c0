"""Training: one rule, one network, some seeds, in one compiled program an epoch."""

import dataclasses
import functools
import json
import time
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from .. import report
from .._files import without_nan, writable_folder, write_json, write_text
from .._versions import versions
from ..contract import Learner, Rule, hyperparameters
from ..data import Data
from ..nets import Stage, has_hard_units
from ..rules import name_of
from . import _checkpoint
from ._checkpoint import CheckpointError
from ._identity import behaviour, difference, parts, recipe, told
from ._lock import alone
from ._program import Program, State, Steps, describe, on_device, pick, stack
from ._progress import Progress
from ._refusals import check, check_settings, list_seeds, refuse_results


class Diverged(FloatingPointError):
    """The loss became NaN or infinite: training stopped, and the last good checkpoint was kept."""


class RuleWarning(UserWarning):
    """Something speaks against how a rule is used, or how an epoch of it went."""


class EpochEnd(NamedTuple):
    """What a callback is told after every epoch.

    Args:
        epoch: how many epochs are done.
        records: one record a seed, as in `Run.results`.
        learners: one learner a seed.
    """

    epoch: int
    records: list[dict[str, Any]]
    learners: list[Learner]


Callback = Callable[[EpochEnd], bool | None]


@dataclasses.dataclass
class Run:
    """A finished run of one rule.

    Args:
        rule: the rule.
        learners: one trained learner a seed; after an early stop, the best on the validation split.
        results: settings, versions and the record of every epoch, as `results.json` has them.
    """

    rule: Rule
    learners: list[Learner]
    results: dict[str, Any]

    @property
    def model(self) -> Any:
        """The trained network of the first seed."""
        return self.learners[0].model

    @property
    def records(self) -> list[dict[str, Any]]:
        """One flat record for each seed and epoch: a table that `pandas.DataFrame` takes as it is."""
        return report.tidy(self.results)

    def plot(self, path: str | Path) -> None:
        """Draw the learning curves, the mean over seeds in a band, to `path` (PNG, SVG or PDF)."""
        report.plot_learning(self.results, Path(path))

    def save(self, path: str | Path) -> None:
        """Write `results` to `path` as JSON."""
        write_json(Path(path), self.results)


def fit(
    rule: Rule,
    net: PyTree | Callable[..., PyTree],
    data: Data,
    *,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 5,
    batch_size: int = 100,
    seeds: int | Sequence[int] = 1,
    patience: int | None = None,
    alignment: bool = True,
    callbacks: Sequence[Callback] = (),
    progress: bool | Progress = True,
    out: str | Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Run:
    """Train a network by a rule, for several seeds at once.

    Every epoch is one compiled program (see `training._program` for the exception), and the numbers
    leave the device once an epoch. The test split is only ever reported.

    Args:
        rule: the credit-assignment rule.
        net: a network, or a function of a `key` that builds one. A function is called once a seed. A
            `Stage` is trained as it is with one seed, and redrawn from its own initialisers for each of
            several seeds. Any other network starts every seed alike.
        data: the data, see `anyprop.data.load`. It is delivered in the network's `input_shape`.
        optimizer: an Optax optimizer; default `optax.adam(1e-3)`, and `optax.sgd(1.0)` for a rule whose update is a
            whole step (`Rule.whole_step`).
        epochs: passes over the training split. The last, incomplete batch of a pass is left out.
        batch_size: examples of one step.
        seeds: how many seeds (0, 1, ...), or which. A seed decides the initial weights, the order of the
            examples and whatever is random in the rule; on a CPU its run is the same to the last bit
            whichever others run beside it.
        patience: stop early when the validation loss has not fallen for that many epochs, and return
            each seed's best learner, which no epoch after the end of its own patience replaces; needs a
            validation split. Default: train for all epochs.
        alignment: after every epoch, measure the angle between the rule's update and the exact gradient.
            Turn it off for a model that cannot be differentiated.
        callbacks: called after every epoch with an `EpochEnd`; one that returns True ends the run.
        progress: show a progress bar with the time left; or a `Progress` to report to.
        out: folder for `metrics.jsonl` (a line for each epoch and seed, as they come), `results.json`,
            `checkpoint.safetensors`, and the empty `.lock`, by which one run at a time has it. Default: nothing is
            written.
        resume: go on from the checkpoint in `out`, if there is one; the run ends bit-identical to one
            that was never interrupted.
        settings: what else to record about the run, such as the name of the optimizer, in the place of the steps and
            numbers that can be read off it.
        name: what to call the run in the results; default: the rule's name.

    Returns:
        The trained learners and the record of every epoch.

    Raises:
        ValueError: an argument is out of range, sizes do not fit the data, labels do not fit the
            outputs, the optimizer never goes downhill, or `out` cannot be written to. Raised before anything is
            compiled or written.
        FileExistsError: `out` holds an earlier run, and `resume` is not asked for.
        BlockingIOError: another run is writing to `out`.
        TypeError: an argument is of another kind, or the rule cannot train this kind of network.
        CheckpointError: the checkpoint is damaged, belongs to other settings, has more epochs than are asked for, or is
            gone, though `out` holds results, which a new run would replace.
        Diverged: the loss became NaN or infinite; the message names the rule, the seed and the step.

    Warns:
        RuleWarning: no error can pass a sign or a step of the network by this rule; or the rule has a complaint about
            an epoch, such as that a phase does not settle. Only the first complaint of a run is passed on.

    Examples:
        >>> import anyprop as ap, jax
        >>> data = ap.data.load("mnist", train_size=500)
        >>> net = ap.nets.mlp(784, 32, 10, key=jax.random.key(0))
        >>> run = ap.fit(ap.FeedbackAlignment(), net, data, epochs=1, progress=False)
        >>> sorted(run.records[-1])[:2]
        ['alignment/1 Dense', 'alignment/2 Dense']
    """
    seed_list = list_seeds(seeds)
    if resume and out is None:
        raise ValueError("resume=True needs out, the folder that holds the checkpoint")
    models, roots = draw_models(net, seed_list)
    data = check(
        rule, models[0], data, epochs=epochs, batch_size=batch_size, patience=patience, optimizer=optimizer,
        callbacks=callbacks,
    )  # fmt: skip
    epochs, batch_size = int(epochs), int(batch_size)  # JSON knows no integers of NumPy
    patience = None if patience is None else int(patience)
    check_settings(settings)
    if optimizer is None:
        make, rate = (optax.sgd, 1.0) if rule.whole_step else (optax.adam, 1e-3)
        optimizer, known = make(rate), {"optimizer": make.__name__, "learning_rate": rate}
    else:
        known = {"optimizer": steps} if (steps := recipe(optimizer)) else {}
    name = name_of(rule) if name is None else name

    learners = [
        rule.init(model, data=describe(data), key=jax.random.fold_in(root, 1))
        for model, root in zip(models, roots, strict=True)
    ]
    described = {
        "data": data.name,
        "epochs": epochs,
        "batch_size": batch_size,
        "seeds": seed_list,
        "patience": patience,
        "rules": {name: hyperparameters(rule)},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(models[0], eqx.is_inexact_array))),
        **known,
        **(settings or {}),
    }
    identity = {
        **parts("rule", rule),
        **parts("model", models[0]),
        "data": data.fingerprint(),
        "batch_size": batch_size,
        "seeds": seed_list,
        "patience": patience,
        **parts("optimizer", behaviour(optimizer, learners[0])),
        "told": told(data, {**known, **(settings or {})}),
    }
    folder = None if out is None else writable_folder("out", Path(out))
    with alone(folder):
        if folder is not None:
            refuse_results(folder, resume=resume)
        program = Program(rule, optimizer, data, learners, batch_size=batch_size, alignment=alignment)
        trainer = _Trainer(program, name, roots, seed_list, patience, folder, identity)
        if resume:
            trainer.resume()
            if trainer.epoch > epochs:
                raise CheckpointError(
                    f"{trainer.checkpoint} has {trainer.epoch} epochs, more than epochs={epochs}; "
                    "pass at least as many, or another out folder"
                )
        warned = _warn_of_hard_units(rule, models[0], name)
        reporter = Progress(show=progress) if isinstance(progress, bool) else progress
        with reporter.task(name, epochs, done=trainer.epoch) as advance:
            trainer.prepare()
            while trainer.epoch < epochs and not trainer.stopped:
                records = trainer.advance()
                advance(trainer.epoch, records)
                warned = warned or _warn(rule, records)
                if callbacks:
                    end = EpochEnd(trainer.epoch, records, trainer.learners())
                    asked = [callback(end) for callback in callbacks]  # every callback hears of every epoch
                    if any(asked):
                        break
        results = {"settings": described, "versions": versions(), "runs": trainer.runs()}
        if folder is not None:
            write_json(folder / "results.json", results)
    return Run(rule, trainer.learners(best=True), results)


class _Trainer:
    """The loop over epochs: what is done, what is recorded, and how to go on from a checkpoint."""

    def __init__(
        self,
        program: Program,
        name: str,
        roots: list[Array],
        seeds: list[int],
        patience: int | None,
        folder: Path | None,
        identity: dict[str, Any],
    ):
        self.program, self.name, self.seeds = program, name, seeds
        self.patience, self.identity = patience, identity
        self.keys = jnp.stack([jax.random.fold_in(root, 2) for root in roots])
        self.state: State = program.start
        self.best = self.state.learner if patience is not None else None
        self.best_loss = [float("inf")] * len(seeds)
        self.waited = [0] * len(seeds)
        self.epoch = 0
        self.history: list[list[dict[str, Any]]] = []  # by epoch, then by seed
        self.checkpoint = None if folder is None else folder / "checkpoint.safetensors"
        self.lines = None if folder is None else folder / "metrics.jsonl"
        data = program.data
        self.splits = {
            name: on_device(split)
            for name, split in (("validation", data.validation), ("test", data.test))
            if split is not None
        }

    @property
    def stopped(self) -> bool:
        """Whether every seed has waited for a better validation loss as long as it may."""
        return not any(self._waits())

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        note, arrays = _checkpoint.read(self.checkpoint, self._note())
        was, now = note["identity"], json.loads(json.dumps(self.identity))
        then, today = was.pop("told", {}), now.pop("told")
        for name in was | now:
            if was.get(name) != now.get(name):
                kind = name.partition("[")[0]
                differs = difference(then.get(kind, {}), today.get(kind, {}))
                name, before, after = differs or (name, was.get(name), now.get(name))
                raise CheckpointError(
                    f"{self.checkpoint} was written with another {name} ({_short(before)}, now {_short(after)}); "
                    "run with the settings it was written with, or pass another out folder"
                )
        self.state, self.best = _checkpoint.restore(self.checkpoint, arrays, (self.state, self.best))
        self.epoch, self.history = note["epoch"], note["history"]
        self.best_loss = [float("inf") if value is None else value for value in note["best_loss"]]
        self.waited = note["waited"]

    def prepare(self) -> None:
        """Compile the epoch, and look at the network before it has learned anything."""
        self.program.compile(self.state, self._epoch_keys())
        if not self.history:
            self.history.append(self._records(0.0, None))
        if self.lines is not None:
            # After a kill the file may be behind the checkpoint, or end in half a line; it is made to agree with it.
            write_text(self.lines, "".join(self._line(record) for epoch in self.history for record in epoch))

    def advance(self) -> list[dict[str, Any]]:
        """Train for one epoch, look at the result, and keep both."""
        begin = time.perf_counter()
        state, steps = self.program.epoch(self.state, self._epoch_keys())
        steps = jax.tree.map(np.asarray, jax.block_until_ready(steps))
        seconds = time.perf_counter() - begin
        self._refuse_divergence(steps, np.asarray(self.program.finite(state)))
        self.state, self.epoch = state, self.epoch + 1
        records = self._records(seconds, steps)
        self.history.append(records)
        if self.patience is not None:
            losses = [record["validation_loss"] for record in records]
            self._keep_best([float("inf") if loss is None else loss for loss in losses])
        if self.checkpoint is not None and self.lines is not None:
            # In this order, an epoch in the file of metrics is one in the checkpoint, too.
            _checkpoint.save(self.checkpoint, (self.state, self.best), self._note())
            with self.lines.open("a", encoding="utf-8") as file:
                file.write("".join(self._line(record) for record in records))
        return records

    def learners(self, best: bool = False) -> list[Learner]:
        """One learner a seed: the present ones, or the best where a run may stop early."""
        state = self.state if not best or self.best is None else State(self.best, self.state.optimizer)
        return [self.program.learner(state, i) for i in range(len(self.seeds))]

    def runs(self) -> list[dict[str, Any]]:
        """One run a seed, as `results.json` has them, with the epoch of its best learner where it may stop early."""
        start, *epochs = [
            [{k: v for k, v in record.items() if k not in ("rule", "seed")} for record in epoch]
            for epoch in self.history
        ]
        rate = float(np.median([epoch[0]["steps_per_second"] for epoch in epochs])) if epochs else None
        return [
            {
                "rule": self.name,
                "seed": seed,
                "cost": {"steps_per_second": rate},
                **({} if self.patience is None else {"best_epoch": self._best_epoch(i)}),
                "start": start[i],
                "epochs": [epoch[i] for epoch in epochs],
            }
            for i, seed in enumerate(self.seeds)
        ]

    def _note(self) -> dict[str, Any]:
        """What a checkpoint holds beside the arrays."""
        return {
            "identity": self.identity,
            "epoch": self.epoch,
            "history": self.history,
            "best_loss": self.best_loss,
            "waited": self.waited,
        }

    def _epoch_keys(self) -> Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, self.epoch))(self.keys)

    def _records(self, seconds: float, steps: Steps | None) -> list[dict[str, Any]]:
        scores = {name: self.program.evaluate(self.state, name, split) for name, split in self.splits.items()}
        angles = self.program.probe(self.state, self._epoch_keys())
        before = self.history[-1][0]["seconds"] if self.history else 0.0
        labelled = self.program.data.classes is not None
        records = []
        for i, seed in enumerate(self.seeds):
            record: dict[str, Any] = {"rule": self.name, "seed": seed, "epoch": self.epoch}
            record["train_loss"] = None if steps is None else float(steps.loss[i].mean())
            record["train_error"] = None if steps is None or not labelled else float(steps.error[i].mean())
            for name, (loss, error) in scores.items():
                record[f"{name}_loss"] = float(loss[i])
                record[f"{name}_error"] = float(error[i]) if labelled else None
            record["seconds"] = before + seconds
            updates = self.program.steps * len(self.seeds)
            record["steps_per_second"] = updates / seconds if steps is not None else None
            if steps is not None:
                record["metrics"] = {k: float(np.mean(v[i])) for k, v in steps.metrics.items()}
            records.append(without_nan(record | angles[i]))
        return records

    def _waits(self) -> list[bool]:
        """Which seeds may still get better: one whose patience has run out ends as it would alone."""
        return [self.patience is None or waited < self.patience for waited in self.waited]

    def _best_epoch(self, i: int) -> int:
        """The first epoch of a seed with its best validation loss; 0 if no loss was ever finite."""
        found = (epoch[i]["epoch"] for epoch in self.history[1:] if epoch[i]["validation_loss"] == self.best_loss[i])
        return next(found, 0)

    def _keep_best(self, losses: list[float]) -> None:
        better = [
            waits and loss < best for waits, loss, best in zip(self._waits(), losses, self.best_loss, strict=True)
        ]
        self.best_loss = [loss if b else best for loss, best, b in zip(losses, self.best_loss, better, strict=True)]
        self.waited = [0 if b else waited + 1 for b, waited in zip(better, self.waited, strict=True)]
        kept = [self.state.learner if b else self.best for b in better]
        self.best = stack([pick(tree, i) for i, tree in enumerate(kept)])

    def _refuse_divergence(self, steps: Steps, finite: np.ndarray) -> None:
        """Raise if a loss is not finite, or a weight is not after the last step, whose loss nobody has seen."""
        bad = np.concatenate([~np.isfinite(steps.loss), ~finite[:, None]], axis=1)
        bad[~np.array(self._waits())] = False  # nothing of what a seed does after its own end is used
        if not bad.any():
            return
        step = int(bad.any(axis=0).argmax())
        seed = int(bad[:, step].argmax())
        saved = self.checkpoint is not None and self.checkpoint.exists()
        kept = f"{self.checkpoint} has the epoch before" if saved else "there is no checkpoint yet"
        last = step == self.program.steps
        what = "a weight" if last else "the loss"
        value = "infinite or nan" if last else steps.loss[seed, step]
        at = min(step + 1, self.program.steps)
        advice, first = "try a smaller learning rate", {k: float(v[seed, 0]) for k, v in steps.metrics.items()}
        # Before anything has been learned, no rate is at fault.
        if not (step or self.epoch) and (complaint := self.program.rule.complaint(first)):
            advice = f"{complaint}; the model is a {type(self.program.static.model).__name__}"
        raise Diverged(
            f"{what} of {self.name} (seed {self.seeds[seed]}) became {value} at step {at} of epoch {self.epoch + 1}; "
            f"{advice} ({kept})"
        )

    @staticmethod
    def _line(record: dict[str, Any]) -> str:
        return json.dumps(without_nan(record), allow_nan=False) + "\n"


ALONG_DERIVATIVES = ("exact", "feedback")
"""Families whose error passes a unit by the derivative of its activation, or not at all."""


def _warn_of_hard_units(rule: Rule, model: PyTree, name: str) -> bool:
    """Warn where no error passes some units; whether that is so. It is a warning, for it is also a baseline."""
    blocked = rule.card.family in ALONG_DERIVATIVES and has_hard_units(model)
    if blocked:
        warnings.warn(
            f"{name}: no error passes a sign or a step, whose derivative is zero, so what lies below one may learn "
            "nothing; StraightThrough and AlternatingMinimization pass it as if it had a slope, and "
            "DiscreteTargetPropagation sends targets across signs between layers",
            RuleWarning,
            stacklevel=3,
        )
    return blocked


def _warn(rule: Rule, records: Sequence[Mapping[str, Any]]) -> bool:
    """Pass on the first complaint that the rule has about an epoch; whether there was one."""
    for record in records:
        finite = {name: value for name, value in record["metrics"].items() if value is not None}
        if complaint := rule.complaint(finite):
            where = f"{record['rule']} (seed {record['seed']}), epoch {record['epoch']}"
            warnings.warn(f"{where}: {complaint}", RuleWarning, stacklevel=3)
            return True
    return False


def draw_models(net: Any, seeds: list[int]) -> tuple[list[Any], list[Array]]:
    """One network and one root key a seed."""
    roots = [jax.random.key(seed) for seed in seeds]
    keys = [jax.random.fold_in(root, 0) for root in roots]
    if isinstance(net, Stage):
        return [net] if len(seeds) == 1 else [net.redraw(key) for key in keys], roots
    if isinstance(net, types.FunctionType | functools.partial):
        return [net(key=key) for key in keys], roots
    return [net for _ in seeds], roots


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
