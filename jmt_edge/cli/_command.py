"""The class of every command: it checks the command's needs before it runs, and shows examples in `--help`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from ._needs import require


class Command(click.Command):
    """A click command. examples: command lines with a comment each, shown at the end of `--help`."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

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
