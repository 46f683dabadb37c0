"""The plan of a fusion kernel's launch: which item of the table of work each program does, and what it waits for.

It depends on the number of multiprocessors, so the run-time makes it on the device that it finds. Plain NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROW = 32  # int32 per row of a plan or of the table
TILE, _BEFORE, _EXPECTED, _AFTER = 24, 25, 26, 27  # columns of a plan's row; in the table, TILE is their number
LINE = 32  # int32 per counter: a cache line


@dataclass(frozen=True)
class Plan:
    """Who does what when, for a number of programs: `fusion_kernel`'s p_plan, p_index and the size of p_barrier."""

    # (launches * programs * pitch, ROW): the table's row with its tile, the counters to wait for and to raise; in each
    # program's first row also its number of rows, its launch's place in p_barrier, the keeper
    rows: NDArray[np.int32]
    index: NDArray[np.int32]  # (launches, programs, 4): first row, rows, place in p_barrier or -1, 1 for the keeper
    counters: int
    pitch: int  # rows from one program's first to the next one's
    cooperative: tuple[bool, ...]  # by launch


def make_plan(
    table: NDArray[np.int32], phases: NDArray[np.int32], launches: Sequence[tuple[int, int]], programs: int
) -> Plan:
    """Give each phase's items to programs, longest first, and say what each program waits for.

    `launches` are ranges of phases. A program waits for the last phase before its own that has any item; it raises its
    phase's counter after the last of its items there, and only a phase's own programs are counted.
    """
    rows: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]] = []
    index = np.zeros((len(launches), programs, 4), np.int32)
    block = LINE * (2 + max((last - first for first, last in launches), default=0))
    for number, (first, last) in enumerate(launches):
        parts, owners = [], []
        before, expected = -1, 0
        for phase in range(first, last):
            begin, count = phases[phase, :2]
            entries = table[begin : begin + count]
            if not count:
                continue
            items = np.repeat(entries, entries[:, TILE], axis=0)
            items[:, TILE] = np.concatenate([np.arange(n) for n in entries[:, TILE]])
            owner = _share_out(items[:, 2] * items[:, 3] + 1, programs)
            items[:, [_BEFORE, _EXPECTED, _AFTER]] = -1
            firsts, lasts = np.zeros(len(items), bool), np.zeros(len(items), bool)
            firsts[np.unique(owner, return_index=True)[1]] = True
            lasts[len(items) - 1 - np.unique(owner[::-1], return_index=True)[1]] = True
            items[firsts, _BEFORE], items[firsts, _EXPECTED] = before, expected
            before, expected = number * block + LINE * (2 + phase - first), len(np.unique(owner))
            if phase + 1 < last:
                items[lasts, _AFTER] = before
            parts.append(items)
            owners.append(owner)
        everything = np.concatenate(parts) if parts else np.zeros((0, ROW), np.int32)
        owner = np.concatenate(owners) if owners else np.zeros(0, np.int64)
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=programs)
        index[number, :, 1] = counts
        index[number, :, 2] = number * block if last - first > 1 else -1
        index[number, -1, 3] = 1
        places = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows.append((everything[order], owner[order], places))
    pitch = max(1, int(index[:, :, 1].max()))
    plan = np.zeros((len(launches), programs, pitch, ROW), np.int32)
    for number, (items, owner, places) in enumerate(rows):
        plan[number, owner, places] = items
    plan[:, :, 0, 28:31] = index[:, :, 1:]
    index[:, :, 0] = np.arange(len(launches) * programs).reshape(len(launches), programs) * pitch
    together = tuple(last - first > 1 for first, last in launches)
    return Plan(plan.reshape(-1, ROW), index, block * len(launches), pitch, together)


def _share_out(costs: NDArray[Any], programs: int) -> NDArray[np.int64]:
    """A program for each item: in turn, or, with few items for a program, to the one with the least so far."""
    if len(costs) > 8 * programs or len(set(costs.tolist())) == 1:
        return np.arange(len(costs)) % programs
    load, owner = np.zeros(programs), np.zeros(len(costs), np.int64)
    for item in np.argsort(-costs, kind="stable"):
        owner[item] = int(np.argmin(load))
        load[owner[item]] += costs[item]
    return owner
