"""What `train` left of a split in its folder, read back with its types checked: people copy and edit such folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..engine.manifest import DATA, UNCERTAINTY_ENTRY
from ..errors import DataError
from ..shapes import (
    Check,
    any_table,
    count,
    line,
    list_of,
    not_negative,
    parsed,
    positive,
    record,
    table_of,
    text,
    that,
)

FACTS = "data.json"  # of the data that it was trained on
RECIPE, SCORES, SPLIT = "recipe.json", "scores.json", "split.json"
UNCERTAINTY = "uncertainty.json"  # for its bundle; an empty table where it is not known

_loss = that(lambda v: v is None or type(v) in (int, float), "a number, or null")
_people = list_of(text)
_CHECKS: dict[str, Check] = {
    FACTS: DATA,
    RECIPE: any_table,
    SCORES: record(
        {
            "seed": count, "key": text, "temperature": positive, "seconds": table_of(not_negative), "scored": text,
            "windows": count, "pooled": any_table, "interval95": any_table,
        },
        {"validation_loss": _loss},
    ),
    SPLIT: record({"train": _people, "validation": _people, "test": _people}, {"name": text, "people": line}),
    UNCERTAINTY: lambda value, where: any_table(value, where) if value == {} else UNCERTAINTY_ENTRY(value, where),
}  # fmt: skip


def read(folder: Path, name: str) -> dict[str, Any]:
    """One of a run's JSON files. Raises DataError where it is missing, unreadable, or does not hold what it must."""
    path = folder / name
    remedy = f"restore it, or remove {folder} and train it again"
    try:
        found = parsed(path.read_bytes())
        _CHECKS[name](found, "")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist, so {folder} is not a finished run; {remedy}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; {remedy}") from None
    return dict(found)
