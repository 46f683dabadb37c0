"""Which clips a window needs.

Window i ends at i x hop. Where the clips of all modalities share one stride (affect, trimodal), that stride is rounded
to the hop's grid: a multiple of the hop, or the hop divided by a whole number. Then each window needs one new clip of
each modality (or that whole number) and finds the others in the cache: the work per hop does not depend on the number
of steps. A window cut into pieces whose length differs between modalities (pain with S = 4) keeps its exact stride, and
pieces that are not in the cache are computed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..tasks import Modality, Task

HOP = 0.5  # s between the windows of a live run, by default


def time_key(t: float) -> int:
    """A time in whole microseconds: equal for equal clip ends, however they were computed."""
    return round(t * 1e6)


@dataclass(frozen=True)
class ClipPlan:
    """Which clips of one modality the windows need.

    m: the modality with the stride that is used. new: how many of a window's newest clips are computed where they are
    not in the cache; older clips that are not in the cache are absent.
    """

    m: Modality
    steps: int
    new: int

    def ends(self, t: float) -> list[float]:
        """Ends (s) of the clips of the window that ends at `t`, oldest first; one where one clip serves all steps."""
        return [t + e for e in self.m.clip_ends(self.steps if self.m.stride else 1)]

    def new_ends(self, t: float) -> list[float]:
        """Those of `ends` that are computed for this window unless an earlier window has them."""
        return self.ends(t)[-self.new :]

    @property
    def reach(self) -> float:
        """Seconds before the window's end from which samples are needed."""
        return self.m.span - self.m.end + (self.new - 1) * self.m.stride


def plan_clips(task: Task, hop: float) -> dict[str, ClipPlan]:
    """The clip plan of each modality for windows every `hop` seconds."""
    strides = {m.stride for m in task.modalities if m.stride}
    plans: dict[str, ClipPlan] = {}
    for m in task.modalities:
        if not m.stride or task.steps == 1:
            plan = ClipPlan(m, task.steps, 1)
        elif len(strides) > 1:
            plan = ClipPlan(m, task.steps, task.steps)
        elif m.stride >= hop:
            plan = ClipPlan(replace(m, stride=max(1, round(m.stride / hop)) * hop), task.steps, 1)
        else:
            per_hop = max(1, round(hop / m.stride))
            plan = ClipPlan(replace(m, stride=hop / per_hop), task.steps, min(per_hop, task.steps))
        plans[m.name] = plan
    return plans
