"""One person's change of the pain output: a few numbers behind the networks, whose weights stay as they are.

    logit = scale x network + bias - sum over modalities of weight x (what that modality adds)

What a modality adds is the network's logit minus its logit without that modality, which a run computes for every
window (`Result.without`). So a stoic face or a skin that does not respond can count for less, a level can be shifted,
and all of it can be fitted from what every recording holds, without a feature, a picture or a sound of the person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..shapes import any_table, count, flag, label, line, list_of, pair_of, record, sha256, share, table_of, text, that

OUTPUT = "pain"
_FARTHEST = 36.0  # logits; a probability in double precision holds no more near 1
Outputs = Mapping[str, float]

number = that(lambda v: type(v) in (int, float) and abs(v) < 1e12, "a number")
_parameters = record({"scale": number, "bias": number, "weights": table_of(number)}, {})
_errors = record({"before": share, "after": share}, {})
PERSONAL_ENTRY = record(
    {
        "subject": label,
        "parameters": _parameters,
        "recordings": list_of(record({"sha256": sha256, "created": line, "ratings": count}, {})),
        "ratings": record({"support": count, "test": count, "painful_from": count}, {}),
        "held_out": record({"brier": _errors, "wrong": _errors, "gain": number, "interval": pair_of(number)}, {}),
        "before": list_of(record({"bundle": label, "sha256": sha256, "parameters": _parameters}, {})),
        "set_aside": record({"name": label}, {"uncertainty": any_table, "sensitivity": any_table}),
        "note": text,
    },
    {"what_ifs": flag, "left_out": record({"gain": number, "interval": pair_of(number), "sure": share}, {})},
)


@dataclass(frozen=True)
class Personal:
    """scale, bias: of the network's logit. weights: modality -> the share of what it adds that is taken away."""

    scale: float = 1.0
    bias: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def logit(self, network: float, without: Mapping[str, float]) -> float:
        """The person's logit. without: modality -> the network's logit without it, where it is known."""
        taken = sum(w * (network - without[name]) for name, w in self.weights.items() if name in without)
        return self.scale * network + self.bias - taken

    def apply(self, outputs: Outputs, without: Mapping[str, Outputs] | None) -> tuple[dict[str, float], dict[str, Any]]:
        """(outputs, what-ifs) for the person, from those of the network. Outputs other than pain stay as they are.

        A what-if is the person's output with that modality missing: scale and bias alone, because what the remaining
        ones add to each other is not known.
        """
        left = without or {}
        alone = {name: logit(of[OUTPUT]) for name, of in left.items()}
        mine = probability(self.logit(logit(outputs[OUTPUT]), alone))
        what_ifs = {name: {**of, OUTPUT: probability(self.logit(alone[name], {}))} for name, of in left.items()}
        return {**outputs, OUTPUT: mine}, what_ifs

    def to_manifest(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_manifest(cls, entry: Mapping[str, Any]) -> Personal:
        """Inverse of `to_manifest`, of an entry that `PERSONAL_ENTRY` accepted."""
        return cls(float(entry["scale"]), float(entry["bias"]), {k: float(v) for k, v in entry["weights"].items()})


def logit(p: float) -> float:
    """Of a probability, within what double precision can tell from 0 and 1."""
    if p <= 0 or p >= 1:
        return math.copysign(_FARTHEST, p - 0.5)
    return min(_FARTHEST, max(-_FARTHEST, math.log(p / (1 - p))))


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(min(-logit, 700.0)))
