"""The result for one window, and its JSON line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

STAGES = ("preprocess", "backbones", "fusion", "networks", "total")


@dataclass(frozen=True)
class Quality:
    """Whether a modality took part in a result, why not, and how good its signal was (0..1).

    lost, altered: samples that its source has lost, and whose time it has moved, since the run began.
    novelty: how unlike the training people's clips the newest clip is, 1 at the limit; None where that was not judged.
    track: the number of the person whose face it is, from 1; turn: degrees, a multiple of 90, by which that person
        lies turned clockwise in the picture. 0 for other modalities and where no face was found.
    """

    ok: bool
    reason: str = ""
    score: float = 0.0
    lost: int = 0
    altered: int = 0
    novelty: float | None = None
    track: int = 0
    turn: int = 0

    def to_dict(self) -> dict[str, Any]:
        counts = {"lost": self.lost, "altered": self.altered, "track": self.track, "turn": self.turn}
        return {
            "ok": self.ok, "reason": self.reason, "novelty": self.novelty,
            **{name: n for name, n in counts.items() if n},
        }  # fmt: skip


@dataclass(frozen=True)
class Result:
    """The window that ends at `t` = `index` x hop, in seconds of stream time.

    outputs: pain is a probability 0..1; valence and arousal lie in [-1, 1]. None where no modality was usable, and
        then `reason` says why: missing data never becomes a number.
    attention: each modality's share of the last fusion step, None where the modality was absent.
    latency_ms: by stage, None where a stage was not timed separately; see `docs/reference/result.md`.
    dropped: windows dropped since the run began.
    demo: the weights were trained on simulated people, so that the numbers mean nothing for real ones.
    uncertainty: `coverage`, and per output the classes of its prediction set or the ends of its interval, see
        `engine.uncertainty`; None where it is not known.
    without: present modality -> the outputs without it; empty where only one is present, None under `--smooth` and in
        recordings of versions that did not compute them.
    rest: the person's rest and the difference from it, see `live.rest.Rest.state`; None where none was measured. Of
        weights that were trained with baselines also `calibrated`, the modalities compared with the rest here.
    actions: what the face does, see `live.actions.LiveActions.state`; None where that was not asked for.
    general: of a personalised bundle, `outputs` and `without` as the networks gave them, before the person's change;
        None, and absent from the JSON line, in all other results.
    """

    index: int
    t: float
    task: str
    outputs: dict[str, float] | None
    reason: str
    quality: dict[str, Quality]
    attention: dict[str, float | None]
    latency_ms: dict[str, float | None]
    dropped: int
    bundle: str
    demo: bool = False
    uncertainty: dict[str, Any] | None = None
    without: dict[str, dict[str, float]] | None = None
    rest: dict[str, Any] | None = None
    actions: dict[str, Any] | None = None
    general: dict[str, Any] | None = None

    @property
    def used(self) -> list[str]:
        """The modalities that the outputs come from."""
        return [name for name, share in self.attention.items() if share is not None]

    def to_dict(self) -> dict[str, Any]:
        """All but the index, in the order above, and `used`."""
        quality = {name: q.to_dict() for name, q in self.quality.items()}
        values = {**vars(self), "quality": quality, "used": self.used}
        del values["index"]
        if self.general is None:
            del values["general"]
        return values

    def to_json(self) -> str:
        """One line of JSON; floats are written in full, so equal lines mean equal bits."""
        return json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False)
