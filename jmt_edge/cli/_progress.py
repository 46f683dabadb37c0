"""The progress bar of a long command: the step's name, its elapsed and remaining time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def step_bar(console: Console) -> Iterator[Callable[[str, float], None]]:
    """Yields `on_step(what, fraction)`. A new name begins a new step, with its own remaining time."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        job = bar.add_task("", total=1.0)
        current = ""

        def on_step(what: str, fraction: float) -> None:
            nonlocal current
            if what != current:
                current = what
                bar.reset(job, description=what, completed=0)
            bar.update(job, completed=fraction)

        yield on_step
