"""What every engine must do with a whole hop."""

from __future__ import annotations

import numpy as np

from jmt_edge.engine.backends.base import Engine
from jmt_edge.tasks import Task


def check_step(engine: Engine, task: Task, atol: float) -> None:
    """`step` gives what `backbones` and then `fusion` give, whatever stood at the fresh steps, and changes no input."""
    rng = np.random.default_rng(5)
    last, every = task.steps - 1, list(range(task.steps))
    clips = {m.name: rng.normal(1, 1, (2, *m.shape)).astype(np.float32) for m in task.modalities}
    sequence = {n: rng.normal(0, 1, (1, task.steps, task.dim)).astype(np.float32) for n in task.names}
    present = rng.random((1, task.steps, len(task.names))) < 0.7
    present[0, -1] = True
    several = {task.names[0]: [[0], [last]]} if last else {}
    for fresh in (
        {},
        {task.names[-1]: [every]},
        {name: [[last]] for name in task.names},
        {**{name: [[last]] for name in task.names}, task.names[0]: [[]]},
        several,
    ):
        new = {name: clips[name][: len(rows)] for name, rows in fresh.items()}
        given, expected = {}, {}
        apart = engine.backbones(new) if new else {}
        for name in task.names:
            given[name], expected[name] = sequence[name].copy(), sequence[name].copy()
            for row, steps in enumerate(fresh.get(name, [])):
                given[name][0, steps] = 1e3
                expected[name][0, steps] = apart[name][row]
        before = {name: value.copy() for name, value in given.items()}
        done, outputs = engine.step(new, given, present, fresh), engine.fusion(expected, present)
        assert done.features.keys() == apart.keys() and done.outputs.keys() == outputs.keys()
        for got, want in ((done.features, apart), (done.outputs, outputs)):
            for key, value in want.items():
                np.testing.assert_allclose(got[key], value, atol=atol * max(1.0, float(np.abs(value).max())))
        assert all(np.array_equal(given[name], before[name]) for name in task.names)
        assert set(done.seconds) <= {"backbones", "fusion"} and all(s > 0 for s in done.seconds.values())
        assert new or "backbones" not in done.seconds
