"""What a step of target propagation as EM costs against backprop through the same auto-encoder.

    python benchmarks/target_propagation_em.py [--rounds 30] [--json benchmarks/bench_targets_em.json]

784-1000-100-1000-784 softplus, batch 100, the images their own targets: which `anyprop bench`, whose data have
labels, cannot show.
"""

import argparse
import json
import sys
from pathlib import Path

import jax

import anyprop as ap
from anyprop._versions import versions
from anyprop.diagnose import bench

BATCH = 100


def contestants() -> tuple[dict[str, tuple[ap.Rule, ap.Learner]], ap.Batch]:
    """Both rules, each with a learner of the same network, and a batch."""
    key = jax.random.key(0)
    data = ap.data.load("mnist").shaped((784,))
    x = data.transform(data.train.x[:BATCH])
    net = ap.nets.mlp(784, 1000, 100, 1000, 784, activation="softplus", key=key)
    rules = {"backprop": ap.Backprop(loss="squared-error"), "target-propagation-em": ap.TargetPropagationEM()}
    return {name: (rule, rule.init(net, key=key)) for name, rule in rules.items()}, ap.Batch(x, x)


def main() -> None:
    """Measure, print and write both rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates = bench(*contestants(), key=jax.random.key(1), rounds=options.rounds)
    for name, rate in rates.items():
        print(f"{name:<24} {rate['steps_per_second']:8.1f} steps/s   {rate['ratio_to_backprop']:6.2f} of backprop's")
    if options.json:
        settings = {"command": f"python {' '.join(sys.argv)}", "batch_size": BATCH, "rounds": options.rounds}
        results = {"rules": rates, "settings": settings, "versions": versions()}
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
