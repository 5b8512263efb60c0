"""`anyprop train RULE` and `anyprop compare RULE RULE ...`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from .. import report
from .._checks import choose
from .._files import write_json
from ..contract import Rule
from ..rules import RULES, find, name_of
from ..training import compare, fit
from ._cache import cache_compilations
from ._console import say, stdout
from ._flags import Examples, Network, Output, Training, build_rule, hyperparameter_flags, parse_assignment
from ._optimizers import default_rate
from ._setup import learning_rates, prepare_output
from ._setup import plan as make_plan


@dataclasses.dataclass
class TrainTraining(Training):
    """How it is trained.

    Args:
        learning_rate: step size.
        seeds: how many seeds; they decide the weights, the order of examples, and what is random in the rule.
    """

    learning_rate: Annotated[
        float | None, arg(metavar="FLOAT", help_behavior_hint="(default: 0.001; sgd 0.1, momentum 0.01)")
    ] = None
    seeds: int = 1


@dataclasses.dataclass
class Train:
    """Train a network by one rule.

    Each rule has flags of its own: anyprop train RULE --help shows them. The folder --out gets
    results.json, metrics.jsonl (a line an epoch) and a checkpoint that --resume goes on from.

    Args:
        rule: name of the rule; anyprop rules lists them.
    """

    rule: Annotated[Positional[str], arg(metavar="RULE")]
    network: OmitArgPrefixes[Network] = dataclasses.field(default_factory=Network)
    data: OmitArgPrefixes[Examples] = dataclasses.field(default_factory=Examples)
    training: OmitArgPrefixes[TrainTraining] = dataclasses.field(default_factory=TrainTraining)
    output: OmitArgPrefixes[Output] = dataclasses.field(default_factory=Output)

    def run(self, line: str) -> int:
        """Train, and write the results."""
        name, training, output = self.rule, self.training, self.output
        own = getattr(self, name.replace("-", "_"), None)  # see `with_flags_of`
        rule = build_rule(find(name), {} if own is None else vars(own), self.network.loss)
        rate = default_rate(rule, training.optimizer) if training.learning_rate is None else training.learning_rate
        cache_compilations()
        plan = make_plan({name: rule}, self.network, self.data, training, {name: rate}, line)
        out = prepare_output(output, Path("runs") / f"train-{name}")
        run = fit(
            rule, plan.net, plan.data, optimizer=plan.optimizers[name], progress=not output.quiet, out=out,
            resume=output.resume, settings=plan.settings, **plan.budget,
        )  # fmt: skip
        _finish(run.results, output, out / "results.json")
        return 0


def with_flags_of(rule: type[Rule]) -> type[Train]:
    """The `train` command with the hyper-parameters of one rule as flags, in a group named after it."""
    flags = hyperparameter_flags(rule)
    if not dataclasses.fields(flags):
        return Train
    field = (
        name_of(rule).replace("-", "_"),
        OmitArgPrefixes[flags],
        dataclasses.field(default_factory=flags),
    )
    command = dataclasses.make_dataclass("Train", [field], bases=(Train,))
    command.__doc__ = Train.__doc__
    return command


@dataclasses.dataclass
class CompareTraining(Training):
    """How it is trained.

    Args:
        learning_rate: step size; one for all rules, and RULE=FLOAT for a rule that needs another. A fair
            comparison tunes it for each rule with the same care. Without --optimizer, a rule whose update is a whole
            step takes it whole, unless it is named.
        seeds: how many seeds; they decide the weights, the order of examples, and what is random in a rule.
    """

    learning_rate: Annotated[
        tuple[str, ...],
        arg(metavar="FLOAT [RULE=FLOAT ...]", help_behavior_hint="(default: 0.001; sgd 0.1, momentum 0.01)"),
    ] = ()
    seeds: int = 3


@dataclasses.dataclass
class Compare:
    """Train the same networks by several rules: same data, seeds and budget.

    The folder --out gets report.html, results.json, and a folder for each rule, with a checkpoint that
    --resume goes on from.

    Args:
        rules: names of the rules; anyprop rules lists them.
        set: a hyper-parameter of one rule, such as kolen-pollack.decay=0.001; may be repeated. The ones that
            there are: anyprop train RULE --help.
    """

    rules: Annotated[Positional[tuple[str, ...]], arg(metavar="RULE [RULE ...]", help_behavior_hint="(required)")]
    set: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="RULE.NAME=VALUE", help_behavior_hint="(default: the rule's)"),
    ] = ()
    network: OmitArgPrefixes[Network] = dataclasses.field(default_factory=Network)
    data: OmitArgPrefixes[Examples] = dataclasses.field(default_factory=Examples)
    training: OmitArgPrefixes[CompareTraining] = dataclasses.field(default_factory=CompareTraining)
    output: OmitArgPrefixes[Output] = dataclasses.field(default_factory=Output)

    def run(self, line: str) -> int:
        """Train by each rule, and write the results and the report."""
        training, output = self.training, self.output
        rules = self._rules()
        rates = learning_rates(training.learning_rate, rules, training.optimizer)
        cache_compilations()
        plan = make_plan(rules, self.network, self.data, training, rates, line)
        out = prepare_output(output, Path("runs") / "compare", rules)
        comparison = compare(
            rules, plan.net, plan.data, optimizer=plan.optimizers, progress=not output.quiet, out=out,
            resume=output.resume, settings=plan.settings, **plan.budget,
        )  # fmt: skip
        _finish(comparison.results, output, out / "report.html")
        return 0

    def _rules(self) -> dict[str, Rule]:
        for flag, words in (("learning-rate", self.training.learning_rate), ("augment", self.data.augment)):
            if taken := [word for word in words if word in RULES]:
                raise ValueError(
                    f"--{flag} takes all words that follow it, {', '.join(taken)} too; put the names of rules first"
                )
        if not self.rules or len(set(self.rules)) < len(self.rules):
            raise ValueError("compare needs the names of rules, each only once; anyprop rules lists them")
        kinds = {name: find(name) for name in self.rules}
        values: dict[str, dict[str, Any]] = {name: {} for name in kinds}
        for text in self.set:
            name, hyperparameter, value = parse_assignment(text)
            if hyperparameter in values[choose("rule", name, kinds)]:
                raise ValueError(f"--set has two values for {name}.{hyperparameter}; pass one of the two")
            values[name][hyperparameter] = value
        return {name: build_rule(kind, values[name], self.network.loss) for name, kind in kinds.items()}


def _finish(results: dict[str, Any], output: Output, page: Path) -> None:
    if output.json is not None:
        write_json(output.json, results)
    if not output.quiet:
        stdout().print(report.table(results))
        say(f"results: {page}")
