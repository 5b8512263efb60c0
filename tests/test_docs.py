"""Every code block of the README and the docs is run, and generated pages are what the code says."""

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from anyprop.cli import main
from anyprop.reproductions import REPRODUCTIONS, explanation
from anyprop.rules import RULES

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.filterwarnings("default")  # what a reader sees, not what we hold ourselves to
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=named)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "docs"}
    for block in blocks(page, "python"):
        exec(compile(block, named(page), "exec"), space)


def commands() -> list[tuple[str, str]]:
    lines = [(named(p), line) for p in PAGES for block in blocks(p, "bash") for line in block.splitlines()]
    return [(page, line.strip()) for page, line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize(("page", "line"), commands())
def test_shell_lines_run(page, line, tmp_path, monkeypatch, capsys):
    words = shlex.split(line)
    if words[0] == "make":  # running it here would nest this suite in itself; that the target exists can be asked
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        return
    assert words[0] == "anyprop", f"{page} shows a command that this test cannot run: {line}"
    monkeypatch.chdir(tmp_path)
    assert main(words[1:]) in (None, 0)
    capsys.readouterr()


def test_every_command_named_in_prose_exists():
    named_commands = {
        words[1]
        for page in PAGES
        for code in re.findall(r"`(anyprop [^`]+)`", page.read_text())
        if len(words := code.split()) > 1
    }
    assert named_commands <= {"rules", "train", "compare", "data", "bench", "reproduce"}


def test_generated_pages_are_up_to_date():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    for path, text in tables.pages().items():
        assert path.read_text() == text, f"run `python docs/tables.py`: {named(path)} is out of date"


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem)
def test_what_is_missed_has_a_guess_why(path):
    result = json.loads(path.read_text())
    missed = [claim["what"] for claim in result["claims"] if not claim["reproduced"]]
    assert bool(missed) == bool(explanation(REPRODUCTIONS[result["name"]], result)), missed


@pytest.mark.parametrize("width", [100, 500])
def test_the_table_of_alternating_minimisation_is_its_result(width):
    curves = json.loads((ROOT / "results" / "am-mnist.json").read_text())["details"][f"2x{width}"]["curves"]
    names = ("am-adam", "am-sgd", "am-mem", "adam", "sgd", "offline-am", "mac", "admm")
    errors = [f"{100 * curves[name][-1]['test_error']:#.3g}" for name in names]
    row = f"| 784-{width}-{width}-10 | {' | '.join(errors)} |"
    assert row in (ROOT / "docs" / "families" / "auxiliary.md").read_text().splitlines()


@pytest.mark.parametrize("family", ["targets", "auxiliary", "equilibrium"])
def test_rules_can_be_compared_by_their_equations(family):
    page = (ROOT / "docs" / "families" / f"{family}.md").read_text()
    described = re.findall(r"^\*\*`(\w+)`\*\*:[^*]*?^\$\$", page, flags=re.MULTILINE)
    assert set(described) == {rule.__name__ for rule in RULES.values() if rule.card.family == family}


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{named(page)} links to {target}"
