"""What the documents name exists: modules and their names, source files, commands and their options."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import click
import pytest
from test_docs_links import tracked

from jmt_edge.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
DOTTED = re.compile(r"(?<![\w./-])jmt_edge(?:\.\w+)+")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def resolve(name: str) -> str | None:
    """None where the dotted `name` is a module, or an attribute of one, else why not."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if error.name and not name.startswith(error.name):  # a library, not a part of the name
                return str(error)
            continue
        for attribute in parts[n:]:
            if not hasattr(found, attribute):
                return f"{'.'.join(parts[:n])} has no {attribute}"
            found = getattr(found, attribute)
        return None
    return "no such module"


def imports(code: str) -> list[str]:
    """The dotted names that a Python example imports from the package."""
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jmt_edge")
        for alias in node.names
    ]


def named(page: Path) -> set[str]:
    """The package's names on a page. Of the changelog's table of moved names only the new ones exist."""
    text = page.read_text()
    if page.name == "CHANGELOG.md":
        text = re.sub(r"^\|.*?\|", "", text, flags=re.M)
    return set(DOTTED.findall(text)) | {name for code in PYTHON.findall(text) for name in imports(code)}


def test_every_dotted_name_imports() -> None:
    pages = {str(page.relative_to(ROOT)): named(page) for page in tracked("*.md")}
    assert sum(map(len, pages.values())) > 30
    wrong = {f"{page}: {name}: {why}" for page, names in pages.items() for name in names if (why := resolve(name))}
    assert not wrong


@pytest.mark.parametrize("name", ["jmt_edge.nowhere", "jmt_edge.tasks.Nothing", "jmt_edge.engine.export.export_bundle"])
def test_a_wrong_name_is_noticed(name: str) -> None:
    assert resolve(name)


def test_every_source_file_that_a_page_names_exists() -> None:
    """Paths count from the root."""
    folders = "benchmarks|calibration|docs|examples|jmt_edge|kernels|scripts|tests|training"
    pattern = re.compile(rf"`((?:{folders})/[\w./-]+\.(?:py|sh|json))`")
    found = [(page, name) for page in tracked("*.md") for name in pattern.findall(page.read_text())]
    assert len(found) > 20
    assert not [f"{page.relative_to(ROOT)}: {name}" for page, name in found if not (ROOT / name).is_file()]


def documented(command: str) -> set[str]:
    """The long options that the section of `command` in the page of commands lists."""
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert section, f"docs/reference/commands.md has no section '{command}'"
    rows = [line.split(" | ")[0] for line in section[1].splitlines() if line.startswith("| `--")]
    return {option for row in rows for option in re.findall(r"--[\w-]+", row)}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_commands_lists_every_option_and_no_other(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = {
        opt
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for opt in (*parameter.opts, *parameter.secondary_opts)
        if opt.startswith("--")
    }
    assert documented(name) == options - {"--help"}


def test_recipes_are_those_in_the_package() -> None:
    page = (ROOT / "docs" / "reference" / "recipes.md").read_text()
    recipes = {file.stem for file in (ROOT / "training" / "recipes").glob("*.json")}
    assert recipes == set(re.findall(r"`((?:biovid|affwild2|trimodal|painmonit|demo)-[\w-]+)`", page))
