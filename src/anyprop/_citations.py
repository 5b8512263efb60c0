"""BibTeX of exactly what was used."""

import re
from importlib.resources import files

from .contract import Rule


def citation(*rules: Rule | type[Rule]) -> str:
    """Return the BibTeX entries of the sources of one or several rules, each once.

    Args:
        rules: rules or rule classes.

    Raises:
        TypeError: one of them is neither, such as a name.

    Examples:
        >>> import anyprop as ap
        >>> print(ap.citation(ap.FeedbackAlignment())[:21])
        @article{lillicrap2016
    """
    for rule in rules:
        if not hasattr(rule, "card"):
            raise TypeError(f"rules must be rules or rule classes, such as ap.KolenPollack, not {rule!r}")
    entries = bibliography()
    keys = dict.fromkeys(key for rule in rules for key in rule.card.source)
    return "\n\n".join(entries[key] for key in keys)


def bibliography() -> dict[str, str]:
    """Every BibTeX entry of the package, by key."""
    text = (files("anyprop") / "references.bib").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=@)", text.strip())
    return {re.match(r"@\w+\{([^,]+),", entry)[1]: entry.strip() for entry in entries}  # type: ignore[index]
