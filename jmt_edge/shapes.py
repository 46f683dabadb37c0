"""What plain JSON must look like: checks that say what is wrong and where, for files that others may have changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]  # (value, its place); raises ValueError, a clause without a full stop


def parsed(raw: bytes) -> Any:
    """JSON. Raises ValueError, a clause."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not readable JSON ({error})") from None


def shown(value: Any) -> str:
    """A value as shown in a message: short, and without terminal control characters."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    said = json.dumps(value) if value is None or isinstance(value, bool) else ascii(value)
    return said if len(said) <= 60 else said[:57] + "..."


def wrong(value: Any, where: str, wanted: str) -> ValueError:
    return ValueError(f"{where or 'it'} is {shown(value)}, not {wanted}")


def that(holds: Callable[[Any], bool], wanted: str) -> Check:
    def check(value: Any, where: str) -> None:
        if not holds(value):
            raise wrong(value, where, wanted)

    return check


flag = that(lambda v: type(v) is bool, "true or false")
any_table = that(lambda v: type(v) is dict, "a table")
any_list = that(lambda v: type(v) is list, "a list")
words = that(lambda v: type(v) is str, "a text")
count = that(lambda v: type(v) is int and 0 <= v < 1 << 63, "a whole number of at least 0")
positive = that(lambda v: type(v) in (int, float) and 0 < v < 1e12, "a number above 0")
not_negative = that(lambda v: type(v) in (int, float) and 0 <= v < 1e12, "a number of at least 0")
sha256 = that(lambda v: type(v) is str and re.fullmatch("[0-9a-f]{64}", v) is not None, "a sha256 in hexadecimal")


def text(value: Any, where: str) -> None:
    words(value, where)
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise wrong(value, where, "a text that can be encoded")


def label(value: Any, where: str) -> None:
    """A text that is safe to print."""
    text(value, where)
    if not 0 < len(value) <= 200 or not value.isprintable():
        raise wrong(value, where, "a printable name of at most 200 characters")


def line(value: Any, where: str) -> None:
    """As a label, but it may be empty."""
    if value != "":
        label(value, where)


def share(value: Any, where: str) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise wrong(value, where, "a share from 0 to 1")


def share_or_null(value: Any, where: str) -> None:
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
        raise wrong(value, where, "a share from 0 to 1, or null")


def list_of(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        any_list(value, where)
        for i, one in enumerate(value):
            item(one, f"{where}[{i}]")

    return check


def pair_of(item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        list_of(item)(value, where)
        if len(value) != 2:
            raise wrong(value, where, "a list of two")

    return check


def table_of(item: Check, key: Check = label) -> Check:
    def check(value: Any, where: str) -> None:
        any_table(value, where)
        for name, one in value.items():
            key(name, f"a key of {where}")
            item(one, f"{where}.{ascii(name)[1:-1]}")

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    def check(value: Any, where: str) -> None:
        any_table(value, where)
        missing = [name for name in required if name not in value]
        if missing:
            raise ValueError(f"{where or 'it'} lacks {', '.join(missing)}")
        for name, item in {**required, **optional}.items():
            if name in value:
                item(value[name], f"{where}.{name}".lstrip("."))

    return check
