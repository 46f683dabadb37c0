"""What a sentence of ours may do to a terminal: nothing."""

from __future__ import annotations

import pytest

from jmt_edge.errors import SourceError


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb", r"a\nb"), ("\x1b[31m", r"\x1b[31m"), ("\u202e", r"\u202e"), ("\ud800", r"\ud800"), ("µS\t1", "µS\t1")],
)
def test_a_name_from_outside_is_shown_on_one_line_without_escapes(name: str, shown: str) -> None:
    text = str(SourceError(f"there is no '{name}'; give another"))
    assert text == f"there is no '{shown}'; give another"
    assert text.encode()
