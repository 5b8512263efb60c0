"""Choose the learning rate of every rule of the demo, all with the same care.

    python benchmarks/tune.py [--json benchmarks/tune.json]

Every rule is tried with the same optimizer at the same grid of rates, on the same network, data and number of
epochs; the rate with the lowest validation error after the last epoch wins. The test split is never read.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import optax

import anyprop as ap
from anyprop._versions import versions

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
RULES = (
    ap.Backprop(),
    ap.FeedbackAlignment(),
    ap.DirectFeedbackAlignment(),
    ap.SignSymmetry(),
    ap.KolenPollack(),
    ap.NodePerturbation(),
    ap.WeightPerturbation(),
)


def error(rule: ap.Rule, rate: float, epochs: int) -> float:
    """The validation error of one seed after the last epoch; 1 if it diverged."""
    data = ap.data.load("mnist", validation=10_000)
    net = partial(ap.nets.mlp, 784, 256, 10)
    optimizer = optax.sgd(rate, momentum=0.9)
    try:
        run = ap.fit(rule, net, data, optimizer=optimizer, epochs=epochs, alignment=False, progress=False)
    except ap.Diverged:
        return 1.0
    return run.records[-1]["validation_error"]


def main() -> None:
    """Try the grid and print the errors, the best of each rule marked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for rule in RULES:
        errors = {rate: error(rule, rate, options.epochs) for rate in RATES}
        best = min(errors, key=errors.__getitem__)
        name = ap.rules.name_of(rule)
        found[name] = {"best": best, "validation_error": {f"{rate:g}": e for rate, e in errors.items()}}
        shown = "  ".join(f"{r:g}: {100 * e:.2f}{'*' if r == best else ' '}" for r, e in errors.items())
        print(f"{name:<28}{shown}", flush=True)
    if options.json:
        text = json.dumps({"versions": versions(), "epochs": options.epochs, "rules": found}, indent=1)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
