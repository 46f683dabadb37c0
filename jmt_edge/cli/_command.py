"""The class of every command: it checks the command's needs before it runs, and shows examples in `--help`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import click

from ._config import refuse_unknown_variables, variable_of
from ._needs import require


class Command(click.Command):
    """A click command. examples: command lines with a comment each, shown at the end of `--help`. configurable: its
    options may come from a file and from the environment (`_config.py`)."""

    def __init__(
        self, *args: Any, examples: Sequence[tuple[str, str]] = (), configurable: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.configurable = configurable
        if configurable:
            for option in self.params:
                key = max(option.opts, key=len).lstrip("-")
                option.envvar = variable_of(self.name or "", key)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        if self.configurable:
            refuse_unknown_variables(self, os.environ)
        return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        require(self.name or "", ctx.params)
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line, why in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}# {why}\n")
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def subcommand(name: str, *, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> Callable[[Any], Command]:
    """`click.command` of that class."""
    return click.command(name, cls=Command, examples=examples, **kwargs)
