"""Messages of the library in the words of the command line."""

import dataclasses
import re
from typing import Any

_ARGUMENT = r"(?<![\w.-])(?P<name>[a-z][a-z_]+)=(?P<value>'[^']*'|<[^>]*>|[\w.+-]*\w)"

_RENAMED = {"source": "data", "augmentation": "augment"}
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

    def flag(match: re.Match[str]) -> str:
        name, value = _RENAMED.get(match["name"], match["name"]), match["value"].strip("'")
        if name not in flags:
            return match[0]
        name = name.replace("_", "-")
        return {"True": f"--{name}", "False": f"--no-{name}"}.get(value, f"--{name} {value}")

    def network(match: re.Match[str]) -> str:
        sizes = [word.strip(" '\"") for word in match["arguments"].split(",") if "=" not in word]
        return f"--net {'-'.join(sizes) if match['name'] == 'mlp' else match['name']}"

    built = r"ap\.nets\.(?P<name>mlp|lenet5|convnet|resnet20|elman)\((?P<arguments>[^()]*)\)"
    message = re.sub(built, network, message)
    # Reinforce(units='gaussian') is, on the command line, --units gaussian alone.
    message = re.sub(rf"[A-Z]\w+\(({_ARGUMENT})\)", r"\1", message)
    return re.sub(_ARGUMENT, flag, message)
