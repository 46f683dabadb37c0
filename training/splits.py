"""Splits of subjects into training, validation and test; each person is on one side only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from .data import person

PROTOCOLS = ("holdout", "kfold", "loso", "loso67", "official")


def require_protocol(text: str) -> None:
    """Raises ConfigError for what is not a protocol: holdout, kfold:K, loso, loso67 or official."""
    name, colon, number = text.partition(":")
    if name not in PROTOCOLS or (colon and (name != "kfold" or not number.isdecimal())):
        raise ConfigError(f"unknown protocol '{text}': choose holdout, kfold:5, loso, loso67 or official")


@dataclass(frozen=True)
class Split:
    """Subjects of each side. Only `validation` selects epochs and temperatures; `test` is scored once."""

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        check_leakage({"train": self.train, "validation": self.validation, "test": self.test})
        if not self.train:
            raise DataError(f"split '{self.name}' has no subject left to train on; use fewer folds or more subjects")

    def to_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def check_leakage(sides: dict[str, Iterable[str]]) -> None:
    """Raises DataError naming the first subject on two sides, in any spelling."""
    seen: dict[str, str] = {}
    for side, subjects in sides.items():
        for subject in subjects:
            before = seen.setdefault(person(subject), side)
            if before != side:
                raise DataError(
                    f"subject {subject} is in both {before} and {side}, which would inflate the score; split by subject"
                )


def holdout(subjects: Sequence[str], *, test: float = 0.25, validation: float = 0.2, seed: int = 0) -> Split:
    """One subject-exclusive split; the shares are of all subjects and of those not in test."""
    order = _shuffled(subjects, seed)
    n_test = _share(len(order), test)
    rest = order[n_test:]
    n_validation = _share(len(rest), validation)
    return Split("holdout", tuple(rest[n_validation:]), tuple(rest[:n_validation]), tuple(order[:n_test]))


def k_fold(subjects: Sequence[str], folds: int, *, validation: float = 0.2, seed: int = 0) -> list[Split]:
    """`folds` subject-exclusive splits: each subject is tested once, and validation is taken from the training side."""
    order = _shuffled(subjects, seed)
    if not 2 <= folds <= len(order):
        raise DataError(f"{folds} folds need 2 to {len(order)} subjects; the data has {len(order)}")
    splits = []
    for k in range(folds):
        test = order[k::folds]
        rest = [s for s in order if s not in set(test)]
        # a different, reproducible part of the rest validates in each fold
        rest = list(np.roll(np.array(rest, dtype=object), -k * max(1, len(rest) // folds)))
        n = _share(len(rest), validation)
        splits.append(Split(f"fold{k + 1}of{folds}", tuple(rest[n:]), tuple(rest[:n]), tuple(test)))
    return splits


def loso(subjects: Sequence[str], *, validation: float = 0.15, seed: int = 0) -> list[Split]:
    """Leave one subject out: one split per subject, in the order of their names."""
    if len(subjects) < 3:
        raise DataError(f"leave-one-subject-out needs at least 3 subjects; the data has {len(subjects)}")
    splits = []
    for k, left_out in enumerate(sorted(subjects)):
        rest = _shuffled([s for s in subjects if s != left_out], seed + k)
        n = _share(len(rest), validation)
        splits.append(Split(f"loso-{left_out}", tuple(rest[n:]), tuple(rest[:n]), (left_out,)))
    return splits


def official(train: Sequence[str], validation: Sequence[str], *, select: float = 0.15, seed: int = 0) -> Split:
    """The challenge's split: its validation set is scored, and part of its train set selects the epoch."""
    check_leakage({"the official train set": train, "the official validation set": validation})
    order = _shuffled(train, seed)
    n = _share(len(order), select)
    return Split("official", tuple(order[n:]), tuple(order[:n]), tuple(validation))


def fraction(split: Split, share: float, *, seed: int = 0) -> Split:
    """`split` with only `share` of its training subjects (at least one); the other sides stay."""
    if not 0 < share <= 1:
        raise DataError(f"a training share of {share} is not in (0, 1]")
    keep = _shuffled(split.train, seed)[: max(1, round(share * len(split.train)))]
    return Split(f"{split.name}-{share:g}", tuple(keep), split.validation, split.test)


def _shuffled(subjects: Sequence[str], seed: int) -> list[str]:
    order = sorted(set(subjects))
    np.random.default_rng(seed).shuffle(order)
    return order


def _share(n: int, share: float) -> int:
    """At least one of several, but never all."""
    return 0 if n < 2 or share <= 0 else min(max(1, round(share * n)), n - 1)
