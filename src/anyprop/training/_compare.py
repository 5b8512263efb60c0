"""Comparison: the same data, networks, seeds and budget for several rules."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from .. import report
from .._files import writable_folder, write_json
from .._versions import versions
from ..contract import Rule
from ..data import Data
from ..rules import name_of
from ._fit import Callback, Run, draw_models, fit
from ._identity import behaviour
from ._lock import alone
from ._program import describe
from ._progress import Progress
from ._refusals import check, check_rule, check_settings, list_seeds, refuse_others, refuse_results


@dataclasses.dataclass
class Comparison:
    """Finished runs of several rules.

    Args:
        runs: one `Run` a rule, by name.
        results: settings, versions and the record of every epoch, as `results.json` has them.
    """

    runs: dict[str, Run]
    results: dict[str, Any]

    @property
    def records(self) -> list[dict[str, Any]]:
        """One flat record for each rule, seed and epoch."""
        return report.tidy(self.results)

    @property
    def summary(self) -> list[dict[str, Any]]:
        """One record a rule: test error and loss over seeds, rate, angles."""
        return report.summary(self.results)

    def to_pandas(self) -> Any:
        """Return `records` as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs pandas; install it, or use `records`, a list of dicts") from error
        return pandas.DataFrame(self.records)

    def plot(self, path: str | Path) -> None:
        """Draw the learning curves of all rules to `path` (PNG, SVG or PDF)."""
        report.plot_learning(self.results, Path(path))

    def report(self, path: str | Path) -> None:
        """Write the HTML report, one file that needs no other, to `path`."""
        report.write_html(self.results, Path(path))

    def save(self, path: str | Path) -> None:
        """Write `results` to `path` as JSON."""
        write_json(Path(path), self.results)


def compare(
    rules: Sequence[Rule] | Mapping[str, Rule],
    net: PyTree | Callable[..., PyTree],
    data: Data,
    *,
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation] | None = None,
    epochs: int = 5,
    batch_size: int = 100,
    seeds: int | Sequence[int] = 3,
    patience: int | None = None,
    alignment: bool = True,
    callbacks: Sequence[Callback] = (),
    progress: bool | Progress = True,
    out: str | Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Comparison:
    """Train the same networks on the same data, in the same order, by several rules.

    Args:
        rules: the rules; as a mapping, the names that the results call them by.
        net: as for `fit`; every rule starts from the same networks.
        data: the data, see `anyprop.data.load`.
        optimizer: one Optax optimizer for all, or one a rule by name. Rules differ in the step size that
            suits them: a fair comparison tunes it for each with the same care.
        epochs: passes over the training split.
        batch_size: examples of one step.
        seeds: how many seeds, or which.
        patience: stop each rule early on the validation split, as for `fit`.
        alignment: measure the angle to the exact gradient after every epoch.
        callbacks: called after every epoch of every rule with an `EpochEnd`.
        progress: show progress bars; or a `Progress` to report to.
        out: folder for `results.json`, `report.html`, and a folder for each rule as `fit` writes it.
        resume: finish what an earlier call with the same `out` began.
        settings: what else to record about the runs.

    Returns:
        The runs, and one table of all.

    Raises:
        ValueError: as for `fit`; also when `rules` is empty, names a rule twice or by what cannot be the name of its
            folder, `optimizer` misses one or names another, or `out` holds a run of `fit` or another rule, which
            `resume` would lose.
        TypeError: an argument is of another kind, or a rule cannot train this kind of network.
        FileExistsError: `out` holds an earlier comparison, and `resume` is not asked for.
        BlockingIOError: another run is writing to `out`.
    """
    if isinstance(rules, str | type | Rule):
        raise TypeError(f"rules must be a sequence of rules, such as [Backprop(), KolenPollack()], not {rules!r}")
    for rule in rules.values() if isinstance(rules, Mapping) else rules:
        check_rule(rule)
    named = dict(rules) if isinstance(rules, Mapping) else {name_of(rule): rule for rule in rules}
    if not named or len(named) < len(rules):
        raise ValueError("rules must name at least one rule, and each only once; pass a mapping to tell variants apart")
    if out is not None and (other := [name for name in named if name in ("", "..") or Path(name).name != name]):
        raise ValueError(f"rules must have names that can be those of folders in out, not {other[0]!r}")
    optimizers = optimizer if isinstance(optimizer, Mapping) else dict.fromkeys(named, optimizer)
    if missing := set(named) - set(optimizers):
        raise ValueError(f"optimizer has no entry for {', '.join(sorted(missing))}")
    if extra := set(optimizers) - set(named):
        raise ValueError(f"optimizer has an entry for {', '.join(sorted(extra))}; the rules are {', '.join(named)}")
    (model, *_), _ = draw_models(net, list_seeds(seeds)[:1])
    for name, rule in named.items():  # all of them, before the first one trains
        fitting = check(
            rule, model, data, epochs=epochs, batch_size=batch_size, patience=patience, optimizer=optimizers[name],
            callbacks=callbacks,
        )  # fmt: skip
        if (steps := optimizers[name]) is not None:  # tried as `fit` will, which refuses one that cannot learn
            behaviour(steps, rule.init(model, data=describe(fitting), key=jax.random.key(0)))
    check_settings(settings)
    folder = None if out is None else writable_folder("out", Path(out))
    display = Progress(show=progress) if isinstance(progress, bool) else progress
    runs: dict[str, Run] = {}
    with alone(folder), display:
        if folder is not None:
            if resume:
                refuse_others(folder, named)
            else:
                refuse_results(folder, resume=False)
            for name in named:
                refuse_results(folder / name, resume=resume)
        for name, rule in named.items():
            runs[name] = fit(
                rule, net, data, optimizer=optimizers[name], epochs=epochs, batch_size=batch_size, seeds=seeds,
                patience=patience, alignment=alignment, callbacks=callbacks, progress=display, resume=resume,
                out=None if folder is None else folder / name, settings=settings, name=name,
            )  # fmt: skip
            if folder is not None:
                # After every rule, so that whatever stops a later one leaves the earlier ones readable.
                sofar = _together(runs)
                sofar.save(folder / "results.json")
                sofar.report(folder / "report.html")
    return _together(runs)


def _together(runs: dict[str, Run]) -> Comparison:
    return Comparison(runs, merge([run.results for run in runs.values()]))


def one_or_each(values: Mapping[str, Any]) -> Any:
    """The value if it is the same for all rules, else all of them by rule."""
    first, *others = values.values()
    return dict(values) if any(other != first for other in others) else first


def merge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One results dict of several, with every rule's rate as a ratio to backprop's where that ran too."""
    runs = [run for result in results for run in result["runs"]]
    reference = next((run["cost"]["steps_per_second"] for run in runs if run["rule"] == "backprop"), None)
    for run in runs:
        rate = run["cost"]["steps_per_second"]
        run["cost"]["ratio_to_backprop"] = rate / reference if rate and reference else None
    settings = {
        name: one_or_each({next(iter(result["settings"]["rules"])): result["settings"].get(name) for result in results})
        for name in dict.fromkeys(name for result in results for name in result["settings"])
    }
    settings["rules"] = {name: value for result in results for name, value in result["settings"]["rules"].items()}
    return {"settings": settings, "versions": versions(), "runs": runs}
