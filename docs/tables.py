"""Write the tables that the docs take from the code: `python docs/tables.py`.

The rules come from their cards, the reproductions from the results in `results/`. A test fails when a page is
not what this script writes.
"""

import json
import re
from pathlib import Path
from typing import Any

from anyprop.reproductions import REPRODUCTIONS, explanation
from anyprop.rules import RULES

ROOT = Path(__file__).parent.parent


def rules() -> str:
    """The table of rules, from their cards."""
    rows = ["| rule | on the command line | family | trains | local | exact limit |", "|---|---|---|---|---|---|"]
    for name, rule in RULES.items():
        card = rule.card
        local, limit = "yes" if card.local else "no", card.limit.replace("|", "\\|")
        rows.append(f"| {card.name} | `{name}` | {card.family} | {card.needs} | {local} | {limit} |")
    return "\n".join(rows)


def reproductions() -> str:
    """The page of reproductions: for every committed result, the paper's numbers beside ours."""
    parts = [
        "# Reproductions",
        "Each is a command; its result lies in `results/`, with the machine, the seeds and the date. "
        "*Evidence* says where the paper's number is known from. A number that we miss is shown as missed, with our "
        "guess why.",
    ]
    for name, reproduction in REPRODUCTIONS.items():
        parts.append(f"## {name}\n\n{reproduction.title}.")
        path = ROOT / "results" / f"{name}.json"
        time = f"about {reproduction.duration} on two CPU cores"
        if not path.exists():
            parts.append(f"Not run yet. `anyprop reproduce run {name}` takes {time}.")
            continue
        result = json.loads(path.read_text())
        versions = result["versions"]
        rows = ["| measured | paper | ours (mean ± sd) | seeds | evidence | |", "|---|---|---|---|---|---|"]
        for claim in result["claims"]:
            unit = f" {claim['unit']}" if claim["unit"] else ""
            spread = "" if claim["sd"] is None else f" ± {claim['sd']:.2g}"
            paper = f"{'at most ' if claim['at_most'] else ''}{claim['value']:g}{unit}"
            rows.append(
                f"| {claim['what']} | {paper} | {claim['measured']:.4g}{spread}{unit} | "
                f"{claim['seeds']} | {claim['evidence']} | {'reproduced' if claim['reproduced'] else '**missed**'} |"
            )
        parts.append("\n".join(rows))
        parts += [text for text in (result["note"], explanation(reproduction, result)) if text]
        parts.append(
            f"`{result['command']}` on {versions['device']}, {versions['cores']} cores, JAX {versions['jax']}, "
            f"{versions['date'][:10]}. At full size it takes {time}."
        )
    return "\n\n".join(parts) + "\n"


def contestants(benchmark: str) -> list[str]:
    """A table for each comparison of a benchmark, and what it was run on."""
    result = json.loads((ROOT / "benchmarks" / f"{benchmark}.json").read_text())
    parts = []
    for title, seconds in result["seconds_per_epoch"].items():
        reference, *_ = seconds.values()
        rows = ["| contestant | seconds | ratio |", "|---|---|---|"]
        rows += [f"| {name} | {value:.2f} | {value / reference:.2f} |" for name, value in seconds.items()]
        parts.append(f"**{title}**\n\n" + "\n".join(rows))
    return [*parts, machine(result["versions"])]


def layer_parallel() -> list[str]:
    """The table of layers on devices of their own, and what it was run on."""
    result = json.loads((ROOT / "benchmarks" / "layer_parallel.json").read_text())
    rows = ["| net | contestant | steps per second | ratio |", "|---|---|---|---|"]
    for net, rates in result["steps_per_second"].items():
        rows += [f"| {net} | {name} | {rate:.0f} | {rate / rates['one program']:.2f} |" for name, rate in rates.items()]
    return ["\n".join(rows), machine(result["versions"])]


def machine(versions: dict[str, Any]) -> str:
    """What a benchmark was run on."""
    return f"{versions['device']}, {versions['cores']} cores, JAX {versions['jax']}, {versions['date'][:10]}."


def speed() -> str:
    """The page of speed, from the last committed run of the benchmarks."""
    parts = [
        "# Speed",
        "Seconds for one epoch of MNIST (60,000 images), the median of rounds in which all contestants take turns, "
        "without compilation. Machines differ: the ratios are what matters. `python "
        "benchmarks/against_hand_written.py --json benchmarks/against_hand_written.json` makes the numbers; PyTorch "
        "needs `pip install 'anyprop[bench]'`. The data loader does for each example what torchvision's MNIST with "
        "ToTensor and Normalize does; a lighter dataset narrows that gap a good deal. The products alone are those of "
        "the forward pass and of the update: what no implementation on the same library saves, and most of an epoch.",
    ]
    parts += contestants("against_hand_written")
    parts.append(
        "Equilibrium propagation on 6,000 images, 20 free and 4 nudged steps: `python "
        "benchmarks/equilibrium_propagation.py --json benchmarks/equilibrium_propagation.json`. By hand, the dynamics "
        "are written out; with autograd, PyTorch differentiates the energy in every step."
    )
    parts += contestants("equilibrium_propagation")
    parts.append(
        "Predictive coding with 20 inference steps: `python benchmarks/predictive_coding.py --json "
        "benchmarks/predictive_coding.json`, with `pip install fabricpc`. The products alone are those of inference "
        "between the hidden layers, which no implementation on the same library saves."
    )
    parts += contestants("predictive_coding")
    parts.append(
        "Block Gibbs sampling of a restricted Boltzmann machine: `python benchmarks/gibbs_against_thrml.py --json "
        "benchmarks/gibbs_against_thrml.json`, with `pip install thrml`. thrml samples graphs with any connections, "
        "along lists of edges; where whole layers are joined, products of matrices are faster, which is why the "
        "machines here are not built on it."
    )
    parts += contestants("gibbs_against_thrml")
    parts.append(
        "Alternating minimisation with Adam, batch 200, as one program for all layers and as `LayerParallel` on host "
        "devices: `python benchmarks/layer_parallel.py --json benchmarks/layer_parallel.json`. The devices share the "
        "cores, and however many there are, they gain nothing over one program."
    )
    parts += layer_parallel()
    parts.append("Each rule's rate as a ratio to backprop's, same net and batch, in turns:")
    for path in sorted((ROOT / "benchmarks").glob("bench*.json")):
        rates = json.loads(path.read_text())
        rows = ["| rule | steps per second | ratio to backprop |", "|---|---|---|"]
        for name, rate in rates["rules"].items():
            rows.append(f"| `{name}` | {rate['steps_per_second']:.0f} | {rate['ratio_to_backprop']:.2f} |")
        parts.append(f"`{rates['settings']['command']}`, {rates['versions']['date'][:10]}:")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def pages() -> dict[Path, str]:
    """What every generated page should say, by its path."""
    made = {ROOT / "docs" / "reproductions.md": reproductions(), ROOT / "docs" / "speed.md": speed()}
    for path in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        text = path.read_text()
        made[path] = re.sub(
            r"(<!-- rules -->\n).*?(<!-- /rules -->)", lambda m: f"{m[1]}{rules()}\n{m[2]}", text, flags=re.DOTALL
        )
    return made


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
