"""OpenSignals text files (PLUX): one or several devices side by side, counts or converted values."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import SourceError
from .eda_delimited import microsiemens
from .eda_rows import F64, Asked, Body, EdaRecording
from .units import opensignals_us

_MOST_BITS = 64  # of a converter or a sequence number


@dataclass(frozen=True)
class _Channel:
    device: str
    label: str
    sensor: str
    index: int  # of its column among all
    sequence: int  # index of its device's nSeq
    bits: int
    seq_bits: int  # 0 where the header does not say
    rate: float
    converted: bool


EDA_SENSORS = ("EDABITREV", "EDABIT", "EDA")


def opensignals(body: Body, asked: Asked) -> EdaRecording:
    path, lines = body.path, body.head
    try:
        devices = json.loads(lines[1].lstrip("# "))
        start = next(i for i, line in enumerate(lines) if line.startswith("# EndOfHeader")) + 1
        channels, width = _opensignals_channels(devices)
    except (LookupError, ValueError, StopIteration, AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise SourceError(f"OpenSignals file {path} has a damaged header ({error!r}); export it again") from None
    channel = _chosen(path, devices, channels, asked.column)
    if asked.unit is not None:
        channel = replace(channel, converted=True)
    if asked.rate is not None:
        channel = replace(channel, rate=asked.rate)
    if start < len(lines):
        cells = len(lines[start].split())
        if cells != width and len(devices) > 1:
            raise SourceError(
                f"OpenSignals file {path} has {cells} columns and its header {width} for {len(devices)} devices; "
                "export each device by itself"
            )
    rows, (sequence, raw) = body.table(start, None, ".", [channel.sequence, channel.index], 0)
    n = np.arange(len(rows), dtype=np.float64)
    lost = 0
    known = np.abs(sequence) < 1 << 53
    counted = sequence[known]
    if len(sequence) > 1 and np.any(counted != np.floor(counted)):
        step = np.diff(np.where(known, sequence, np.nan))  # seconds
        times = sequence - sequence[0] if np.all(step > 0) and asked.rate is None else n / channel.rate
        lost = int(np.maximum(np.rint(step[step > 0] * channel.rate) - 1, 0).sum())
    else:
        if channel.sequence >= 0 and np.any(np.diff(counted)):
            step = sequence_steps(np.where(known, sequence, np.nan), body.notes, channel.seq_bits)
            n = np.concatenate([[0.0], np.cumsum(step)])
            lost = int((step - 1).sum())
        times = n / channel.rate
    if asked.unit is not None:
        values, _ = microsiemens(body, raw, "", channel.label, asked)
    elif channel.converted or np.any(raw[np.isfinite(raw)] != np.floor(raw[np.isfinite(raw)])):
        values = raw
        body.notes.append(f"the values of {channel.label} are in µS already")
    else:
        top = float(raw.max())
        if top >= 2**channel.bits:
            raise SourceError(
                f"OpenSignals file {path}: {channel.label} reaches {top:g}, more than the {channel.bits} bits of the "
                "header hold; say by FILE?unit=adc&bits=, or unit=uS, what it is"
            )
        values = opensignals_us(raw, channel.bits, channel.sensor)
    if not np.isfinite(values).any() and len(channels) > 1:
        others = ", ".join(c.label for c in channels if c is not channel and c.label != channel.label)
        raise SourceError(
            f"OpenSignals file {path}: {channel.label} is an open electrode throughout; choose another EDA channel by "
            f"FILE?column={others}"
        )
    if lost:
        body.counts["missing in the sequence"] += lost
    name = f"{channel.device}:{channel.label}" if len(devices) > 1 else channel.label
    return EdaRecording(times, values, rows, channel.rate, "opensignals", lost, "µS", name)


def sequence_steps(sequence: F64, notes: list[str], bits: int = 0) -> F64:
    """(n - 1,) samples from each row to the next, by a counter (n,) that starts again after 2^bits, 0 where that is not
    known. Rows whose number cannot be right count as one sample, and `notes` says how many.

    One damaged number must not say how long the counter is.
    """
    known = sequence[np.isfinite(sequence) & (sequence >= 0)]
    if not len(known):
        notes.append("no sequence number is right; the rows follow one another")
        return np.ones(len(sequence) - 1)
    wraps = np.any(np.diff(known) < 0)
    cycle = 2.0 ** (bits or max(4, int(np.percentile(known, 99)).bit_length()))
    wrong = ~np.isfinite(sequence) | (sequence < 0) | ((sequence >= cycle) & bool(wraps or bits))
    wrong[0] = False
    steps = np.diff(sequence)
    if wraps or bits:
        right = np.flatnonzero(~wrong)
        steps = np.ones(len(sequence) - 1)
        between = np.diff(right)
        # over damaged numbers, what is missing shows at the next one that is right
        steps[right[1:] - 1] = (np.diff(sequence[right]) - (between - 1)) % cycle
    steps[(steps == 0) | ~np.isfinite(steps)] = 1  # a repeated number: the row itself is the only witness
    if damaged := int(wrong.sum()):
        notes.append(f"{damaged} sequence numbers cannot be right; those rows follow the ones before")
    return steps


def _opensignals_channels(devices: dict[str, dict[str, object]]) -> tuple[list[_Channel], int]:
    """The EDA channels, and the number of columns: those of the devices follow one another in the header's order."""
    found, before = [], 0
    for name, device in devices.items():
        columns, labels = _strings(device["column"]), _strings(device["label"])
        bits = [int(b) for b in device["resolution"]]  # type: ignore[attr-defined]
        if not all(1 <= b <= _MOST_BITS for b in bits):
            raise ValueError("resolution")
        rate = float(device["sampling rate"])  # type: ignore[arg-type]
        for k, (kind, label) in enumerate(zip(_strings(device["sensor"]), labels)):
            sensor = kind
            if sensor not in EDA_SENSORS:
                continue
            if sensor == "EDA" and (board := str(device.get("device", ""))).startswith("bitalino"):
                sensor = "EDABITREV" if board == "bitalino_rev" else "EDABIT"
            if rate <= 0:
                raise ValueError("sampling rate")
            index = columns.index(label)
            # by column; the mobile app and biosignalsplux list one a channel, or one for all
            by_column = len(bits) == len(columns)
            own = bits[index] if by_column else bits[k] if len(bits) == len(labels) else bits[0]
            seq = columns.index("nSeq") if "nSeq" in columns else -1
            seq_bits = bits[seq] if by_column and seq >= 0 else 0
            converted = bool(device.get("convertedValues", 0))
            found.append(
                _Channel(name, label, sensor, before + index, before + max(seq, 0), own, seq_bits, rate, converted)
            )
        before += len(columns)
    return found, before


def _strings(listed: object) -> list[str]:
    if not isinstance(listed, list):
        raise TypeError("a list is missing")
    return [str(item) for item in listed]


def _chosen(
    path: Path, devices: dict[str, dict[str, object]], channels: list[_Channel], column: str | None
) -> _Channel:
    if not channels:
        seen = ", ".join(str(s) for device in devices.values() for s in _strings(device["sensor"]))
        raise SourceError(
            f"OpenSignals file {path} has no EDABITREV, EDABIT or EDA channel (it has {seen or 'none'}); give µS as CSV"
        )
    names = [f"{c.device}:{c.label}" if len(devices) > 1 else c.label for c in channels]
    fitting = [c for c, n in zip(channels, names) if column is None or column.lower() in (n.lower(), c.label.lower())]
    if column == "gsr" and not fitting:
        fitting = channels
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise SourceError(f"OpenSignals file {path} has no EDA channel '{column}'; choose one of {', '.join(names)}")
    raise SourceError(
        f"OpenSignals file {path} has {len(fitting)} EDA channels ({', '.join(names)}); choose one by "
        f"FILE?column={names[-1]}"
    )
