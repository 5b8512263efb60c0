"""`anyprop bench`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from rich.box import SIMPLE_HEAD
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from .._checks import count
from .._files import write_json
from .._versions import versions
from ..contract import Batch, Learner, Rule
from ..diagnose import bench
from ..rules import RULES, find
from ..training import describe
from ._cache import cache_compilations
from ._console import say, stdout
from ._flags import Examples, Network, build_rule
from ._setup import check_json, load_data, name_of_network, network
from ._words import in_flags

PASS_A_PARAMETER = ("finite-differences", "forward-accumulation")
"""Rules whose update takes a pass over the network for each parameter: on a large one, minutes a step."""

MOST_PARAMETERS = 5_000  # up to which such rules are timed without being named


@dataclasses.dataclass
class Bench:
    """Measure the rate of rules as a ratio to backprop's, on the same network, in turn.

    A ratio of 0.5 is half as many steps a second as backprop takes. Without names, all rules are timed;
    the ones that cannot train the network are listed with the reason.

    Args:
        rules: names of the rules; backprop is always among them.
        batch_size: examples of one step.
        rounds: rounds; each times one step of every rule, and medians are reported.
        json: write the rates to this file, too.
        quiet: print nothing but errors.
    """

    rules: Annotated[Positional[tuple[str, ...]], arg(metavar="[RULE ...]", help_behavior_hint="(default: all)")] = ()
    batch_size: int = 100
    rounds: int = 30
    json: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    quiet: FlagCreatePairsOff[bool] = False
    network: OmitArgPrefixes[Network] = dataclasses.field(default_factory=Network)
    data: OmitArgPrefixes[Examples] = dataclasses.field(default_factory=Examples)

    def run(self, line: str) -> int:
        """Measure, print the table, and write the file."""
        kinds = {name: find(name) for name in ("backprop", *(self.rules or RULES))}
        count("batch_size", self.batch_size)
        count("rounds", self.rounds)
        check_json(self.json)
        cache_compilations()
        data = load_data(self.data)
        build = network(self.network, data)
        model = build(key=jax.random.key(0))
        data = data.shaped(model.input_shape)
        if self.batch_size > len(data.train):
            raise ValueError(f"batch_size={self.batch_size} is more than the {len(data.train)} training examples")
        x, y = data.train.x[: self.batch_size], data.train.y[: self.batch_size]
        batch = Batch(data.transform(x), jnp.asarray(y), jnp.arange(self.batch_size))
        contestants: dict[str, tuple[Rule, Learner]] = {}
        skipped: dict[str, str] = {}
        for name, kind in kinds.items():
            if not self.rules and name in PASS_A_PARAMETER and _parameters(model) > MOST_PARAMETERS:
                skipped[name] = f"takes {_parameters(model):,} passes, one a parameter; name it to time it"
                continue
            try:
                rule = build_rule(kind, {}, self.network.loss)
                contestants[name] = rule, rule.init(model, data=describe(data), key=jax.random.key(1))
            except (TypeError, ValueError) as error:
                skipped[name] = in_flags(str(error), self)
        rates: dict[str, dict[str, Any]] = bench(contestants, batch, key=jax.random.key(2), rounds=self.rounds)
        if self.json is not None:
            settings = {
                "command": line,
                "net": name_of_network(self.network, build),
                "data": data.name,
                "batch_size": self.batch_size,
                "rounds": self.rounds,
            }
            results = {"rules": rates, "skipped": skipped, "settings": settings, "versions": versions()}
            write_json(self.json, results)
        if not self.quiet:
            stdout().print(_table(rates, skipped))
        elif self.rules:  # what was asked for by name and is not done
            for name, reason in skipped.items():
                say(f"{name} is not timed: {reason}")
        return 0


def _parameters(model: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))


def _table(rates: dict[str, dict[str, Any]], skipped: dict[str, str]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("rule", no_wrap=True)
    for heading in ("steps/s", "of backprop's"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("skipped because")
    for name, rate in rates.items():
        table.add_row(name, f"{rate['steps_per_second']:,.0f}", f"{rate['ratio_to_backprop']:.2f}", "")
    for name, reason in skipped.items():
        table.add_row(name, "-", "-", reason, style="dim")
    return table
