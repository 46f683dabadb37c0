"""The public reports that the tables of situations cite: a thread on GitHub, or the address of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping

REPORT = re.compile(r"[\w.-]+/[\w.-]+#\d+|https://\S+")


def without_report(reports: Mapping[str, str]) -> set[str]:
    """The names of the rows that cite nothing. What is cited must be `owner/repo#number` or an address."""
    wrong = {name: report for name, report in reports.items() if report and not REPORT.fullmatch(report)}
    assert not wrong, wrong
    return {name for name, report in reports.items() if not report}
