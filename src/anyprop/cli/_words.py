"""Messages of the library in the words of the command line."""

import dataclasses
import re
from typing import Any

from ..rules import RULES

_ARGUMENT = r"(?<![\w.-])(?P<name>[a-z][a-z_]+)=(?P<value>'[^']*'|<[^>]*>|\([^()]*\)|[\w.+-]*\w)"

_RENAMED = {"source": "data", "augmentation": "augment", "output": "output_activation"}
"""Arguments whose flag has another name."""


def in_flags(message: str, command: Any) -> str:
    """Write the Python arguments in a message as flags: `batch_size=9` as `--batch-size 9`.

    Args:
        message: what the library says.
        command: the command that ran; only arguments that are flags of its own are rewritten.
    """
    if not dataclasses.is_dataclass(command):
        return message
    groups = [command, *vars(command).values()]
    flags = {f.name for group in groups if dataclasses.is_dataclass(group) for f in dataclasses.fields(group)}

    def named(name: str) -> str | None:
        name = _RENAMED.get(name, name)
        return f"--{name.replace('_', '-')}" if name in flags else None

    def flag(match: re.Match[str]) -> str:
        name, value = named(match["name"]), match["value"]
        if name is None:
            return match[0]
        if value.startswith("("):  # a sequence of words
            words = re.findall("'([^']*)'", value)
            return " ".join([name, *words]) if words else f"no {name}"
        value = value.strip("'")
        return {"True": name, "False": name.replace("--", "--no-", 1)}.get(value, f"{name} {value}")

    def network(match: re.Match[str]) -> str:
        sizes = [word.strip(" '\"") for word in match["arguments"].split(",") if "=" not in word]
        return f"--net {'-'.join(sizes) if match['name'] == 'mlp' else match['name']}"

    def rule(match: re.Match[str]) -> str:
        """Reinforce(units='gaussian') is --units gaussian alone, or of several rules --set reinforce.units=gaussian."""
        kind = next((name for name, kind in RULES.items() if kind.__name__ == match["rule"]), None)
        if "set" not in flags or kind is None:
            return match["argument"]
        value = match["value"].strip("'")
        return f"--set {kind}.{match['name']}={value}"

    built = r"ap\.nets\.(?P<name>mlp|lenet5|convnet|resnet20|elman)\((?P<arguments>[^()]*)\)"
    message = re.sub(built, network, message)
    message = re.sub(rf"(?P<rule>[A-Z]\w+)\((?P<argument>{_ARGUMENT})\)", rule, message)
    message = re.sub(_ARGUMENT, flag, message)
    message = re.sub(r"(?<=another )([a-z_]+)(?= \()", lambda match: named(match[1]) or match[0], message)
    return message.replace("another out folder", "another --out")
