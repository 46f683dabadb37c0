"""The fusion kernels against the model itself: accuracy, masks, batch invariance, determinism, the grid barrier."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from kernels_fixture import inputs, oracle, random_jmt
from torch import Tensor

from jmt_edge.errors import ConfigError
from jmt_edge.kernels.layout import weights_of
from jmt_edge.kernels.ops import FusedFusion
from jmt_edge.kernels.reference import Reference, run_table
from jmt_edge.kernels.schedule import Schedule, Tiles, activation, build_schedule, choose_tiles
from jmt_edge.models.fusion import JMT


def relative(got: Tensor, want: Tensor) -> float:
    assert torch.isfinite(got).all()
    return float((got.double().cpu() - want).norm() / want.norm())


def fused(model: JMT, batch: int, steps: int, device: str, **options: object) -> FusedFusion:
    """On a CPU with wide tiles: the interpreter's time is per tile."""
    made = FusedFusion(weights_of(model), batch, steps, device=device, **options)  # type: ignore[arg-type]
    if device == "cpu":
        width = min(64, made.schedule.constants["D"])  # type: ignore[type-var]
        made = _with_tiles(made, model, Tiles(int(width), 64), batch, steps, options)
    return made


def _with_tiles(
    made: FusedFusion, model: JMT, tiles: Tiles, batch: int, steps: int, options: dict[str, object]
) -> FusedFusion:
    import jmt_edge.kernels.ops as ops

    original = ops.choose_tiles
    ops.choose_tiles = lambda *_: tiles
    try:
        return FusedFusion(weights_of(model), batch, steps, device="cpu", **options)  # type: ignore[arg-type]
    finally:
        ops.choose_tiles = original


# (M, d, heads, head, |x|), B, S, last step alone, dtype, mode, programs in the interpreter
CASES = [
    ((2, 64, 1, "self_attention", False), 1, 16, True, "float16", "persistent", 1),
    ((2, 32, 1, "self_attention", False), 1, 1, True, "float32", "persistent", 1),
    ((2, 32, 1, "self_attention", False), 3, 7, False, "bfloat16", "phased", 5),
    ((2, 32, 1, "self_attention", False), 3, 7, True, "bfloat16", "phased", 5),
    ((2, 32, 1, "self_attention", False), 1, 33, True, "float16", "persistent", 1),
    ((2, 32, 1, "concat", True), 3, 7, True, "float16", "staged", 1),
    ((3, 32, 1, "self_attention", False), 1, 2, False, "float32", "phased", 3),
    ((3, 32, 1, "self_attention", False), 2, 2, True, "float32", "staged", 1),
    ((2, 32, 2, "self_attention", False), 1, 16, False, "float16", "persistent", 1),
    ((2, 32, 2, "self_attention", False), 2, 5, True, "float16", "persistent", 1),
    ((3, 32, 2, "concat", False), 1, 7, True, "bfloat16", "persistent", 1),
    ((2, 32, 1, "concat", False), 1, 63, False, "float32", "staged", 1),
    ((2, 32, 1, "self_attention", False), 1, 64, True, "bfloat16", "phased", 4),
]


@pytest.mark.parametrize(("shape", "batch", "steps", "last", "dtype", "mode", "programs"), CASES)
def test_error_is_at_most_twice_that_of_pytorch(
    shape: tuple[int, int, int, str, bool],
    batch: int,
    steps: int,
    last: bool,
    dtype: str,
    mode: str,
    programs: int,
    device: str,
) -> None:
    m, d, heads, head, joint_abs = shape
    model = random_jmt(m, d, heads, head, joint_abs=joint_abs)
    options = {"dtype": dtype, "mode": mode, "programs": programs if device == "cpu" else None, "last": last}
    kernel = fused(model, batch, steps, device, **options)
    same = random_jmt(m, d, heads, head, joint_abs=joint_abs).to(getattr(torch, dtype)).to(device)
    ours, theirs = [], []
    given = batch if last else batch * steps
    for seed in range(max(1, 4 // given)):  # enough numbers for the ratio to mean something
        features, present = inputs(m, batch, steps, d, seed=100 * steps + seed)
        features = features.to(getattr(torch, dtype)).float()  # both sides see the same input
        want, want_share = oracle(model, features, present, last)
        eager, _ = oracle(same, features.to(device), present.to(device), last)
        logits, share = kernel.raw(features.to(device), present.to(device))
        assert logits.shape == want.shape
        ours.append(relative(logits, want))
        theirs.append(relative(eager, want))
        if want_share is not None:
            tolerance = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
            np.testing.assert_allclose(share.cpu().numpy(), want_share.numpy(), atol=tolerance)
    assert np.linalg.norm(ours) <= 2 * np.linalg.norm(theirs)


def test_stages_against_their_references(device: str) -> None:
    """The encoders' sums and the blocks, not only the end: an error there could drown in the heads."""
    model = random_jmt(2, 64)
    features, present = inputs(2, 1, 5, 64, seed=3)
    kernel = fused(model, 1, 5, device, dtype="float32", mode="staged")
    kernel.raw(features.to(device), present.to(device))
    reference = Reference(weights_of(model), torch.float64)
    sums = reference.encoders(features.double(), present)
    assert relative(kernel.buffer("enc"), sums.flatten(1, 2)) < 1e-6
    assert relative(kernel.buffer("z")[..., :64], reference.cross(sums).flatten(1, 2)) < 1e-6


@pytest.mark.parametrize(("d", "batch", "steps"), [(256, 1, 1), (64, 2, 5)])
def test_int8_weights(d: int, batch: int, steps: int, device: str) -> None:
    """A wide one (512, the papers' width, takes the interpreter minutes), and several steps.

    The oracle has the quantised matrices: only the arithmetic is judged.
    """
    model = random_jmt(2, d)
    features, present = inputs(2, batch, steps, d, seed=4)
    features = features.half().float()
    kernel = fused(model, batch, steps, device, dtype="int8", last=True)
    logits, share = kernel.raw(features.to(device), present.to(device))
    want, want_share = run_table(kernel.schedule, features.double().numpy(), present.numpy() > 0.5)
    exact, _ = oracle(model, features, present, last=True)
    eager, _ = oracle(random_jmt(2, d).half(), features, present, last=True)
    assert relative(logits, torch.from_numpy(want)) <= 2 * relative(eager, exact)
    np.testing.assert_allclose(share.cpu().numpy(), want_share, atol=5e-3)
    assert relative(logits, exact) < 0.1  # what the quantisation itself costs


def test_a_sample_is_the_same_in_any_batch_mode_and_run(device: str) -> None:
    model = random_jmt(2, 32)
    features, present = (t.to(device) for t in inputs(2, 3, 3, 32, seed=5))
    every = fused(model, 3, 3, device, mode="phased", programs=4).raw(features, present)
    whole = fused(model, 3, 3, device, mode="phased", programs=5, last=True).raw(features, present)
    for part, all_steps in zip(whole, every):
        assert torch.equal(part, all_steps[:, -1:])
    alone = fused(model, 1, 3, device, last=True)
    for b in (0, 2, 2):
        one = alone.raw(features[:, b : b + 1], present[b : b + 1])
        for part, all_of_it in zip(one, whole):
            assert torch.equal(part[0], all_of_it[b])


def test_an_absent_modality_has_no_influence(device: str) -> None:
    model = random_jmt(2, 32)
    features, present = inputs(2, 1, 2, 32, seed=7)
    present[..., 1] = 0
    features[1] = float("nan")
    kernel = fused(model, 1, 2, device, dtype="float32")
    logits, share = kernel.raw(features.to(device), present.to(device))
    want, want_share = oracle(model, torch.nan_to_num(features), present)
    assert relative(logits, want) < 1e-5
    assert torch.equal(share[..., 1].cpu(), torch.zeros(1, 2))
    assert want_share is not None
    np.testing.assert_allclose(share.cpu().numpy(), want_share.numpy(), atol=1e-6)


def test_nothing_present_gives_the_tokens_answer(device: str) -> None:
    model = random_jmt(2, 32)
    features, present = inputs(2, 1, 2, 32, seed=8)
    logits, share = fused(model, 1, 2, device, dtype="float32").raw(features.to(device), (0 * present).to(device))
    want, _ = oracle(model, features, 0 * present)
    assert relative(logits, want) < 1e-5
    assert torch.equal(share.cpu(), torch.zeros(1, 2, 2))


def test_module_returns_what_the_model_returns(device: str) -> None:
    model = random_jmt(2, 32)
    features, present = inputs(2, 1, 2, 32, seed=9)
    named = dict(zip(model.modalities, features))
    kernel = fused(model, 1, 2, device, dtype="float32")
    got = kernel({k: v.to(device) for k, v in named.items()}, present.to(device), return_attention=True)
    want = model({k: v.double() for k, v in named.items()}, present.double(), return_attention=True)
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].shape == want[name].shape
        assert relative(got[name], want[name].detach()) < 1e-5
    full = kernel({k: v.to(device) for k, v in named.items()})
    assert relative(full["pain"], model({k: v.double() for k, v in named.items()})["pain"].detach()) < 1e-5


def test_operator_is_registered_with_its_fake(device: str) -> None:
    kernel = fused(random_jmt(2, 32), 1, 1, device)
    features, present = (t.to(device) for t in inputs(2, 1, 1, 32, seed=10))
    s = kernel.schedule
    arguments = (
        features, present, kernel.weights, kernel.params, kernel.plan, kernel.index, kernel.work, kernel.barrier,
        s.results, s.logits, kernel._cooperative, kernel._constants, 1e-5, s.tiles.warps, kernel.programs,
        kernel.pitch, kernel._function, kernel._shared,
    )  # fmt: skip
    torch.library.opcheck(
        torch.ops.jmt_edge.joint_fusion, arguments, test_utils=("test_schema", "test_faketensor")
    )  # fmt: skip


# ---------------------------------------------------------------- the table of work


@pytest.mark.parametrize(
    ("m", "heads", "head", "joint_abs"),
    [(2, 1, "self_attention", False), (3, 1, "self_attention", True), (2, 4, "self_attention", False),
     (2, 1, "concat", True), (3, 1, "concat", False), (3, 2, "concat", False)],
)  # fmt: skip
@pytest.mark.parametrize(("tiles", "last"), [(Tiles(16, 64), False), (Tiles(32, 128), True), (Tiles(16, 64), True)])
def test_table_is_the_model(m: int, heads: int, head: str, joint_abs: bool, tiles: Tiles, last: bool) -> None:
    model = random_jmt(m, 64, heads, head, joint_abs=joint_abs)
    features, present = inputs(m, 2, 5, 64, seed=11)
    want, want_share = oracle(model, features, present, last)
    schedule = build_schedule(weights_of(model), 2, 5, "float32", tiles, last=last)
    logits, share = run_table(schedule, features.double().numpy(), present.numpy() > 0.5)
    assert relative(torch.from_numpy(logits), want) < 1e-6  # its matrices are float32
    if want_share is not None:
        np.testing.assert_allclose(share, want_share.numpy(), atol=1e-6)
    exact, _ = Reference(weights_of(model), torch.float64)(features.double(), present, last)
    assert relative(exact, want) < 1e-12


def test_work_within_a_phase_is_independent() -> None:
    """Any order within a phase gives the same result, from memory full of NaN: no barrier is missing."""
    schedule = build_schedule(weights_of(random_jmt(2, 64, 2)), 1, 5, "float32", Tiles(16, 64), last=True)
    features, present = inputs(2, 1, 5, 64, seed=12)
    want, _ = run_table(schedule, features.double().numpy(), present.numpy() > 0.5)
    rng = np.random.default_rng(0)
    table = schedule.table.copy()
    for first, count in schedule.phases:
        table[first : first + count] = rng.permutation(table[first : first + count])
    assert not np.array_equal(table, schedule.table)
    got, _ = run_table(replace(schedule, table=table), features.double().numpy(), present.numpy() > 0.5)
    np.testing.assert_array_equal(got, want)


def test_each_phase_reads_only_what_earlier_phases_wrote() -> None:
    """Swapping two neighbouring phases must show as NaN or another result: every barrier is needed."""
    schedule = build_schedule(weights_of(random_jmt(2, 64)), 1, 5, "float32", Tiles(32, 64), last=True)
    features, present = inputs(2, 1, 5, 64, seed=13)
    want, _ = run_table(schedule, features.double().numpy(), present.numpy() > 0.5)
    for i in range(len(schedule.phases) - 1):
        phases = schedule.phases.copy()
        phases[[i, i + 1]] = phases[[i + 1, i]]
        got, _ = run_table(replace(schedule, phases=phases), features.double().numpy(), present.numpy() > 0.5)
        assert not np.array_equal(got, want)


@pytest.mark.parametrize(("merge", "streamed"), [(True, 1.43), (False, 1.09)])
def test_every_weight_is_read_once_per_row_tile(merge: bool, streamed: float) -> None:
    """B = 1, S = 16, last step: one row tile in every phase, and the bytes read are the packed matrices, not far above
    the folded minimum at M = 2: merging phases costs bytes."""
    weights = weights_of(random_jmt(2, 512))
    schedule = build_schedule(weights, 1, 16, "float16", Tiles(16, 64, merge=merge), last=True)
    assert len(schedule.phases) == (7 if merge else 12)
    assert set(schedule.table[:, 24]) == {1}
    covered = np.zeros(schedule.weights.size, np.int32)
    for op, offset, units, _, columns, *_ in schedule.table.tolist():
        if op in (0, 1, 2, 5, 6):
            covered[offset : offset + columns * units * 512] += 1
    assert covered.max() == (1 if merge else 2)  # apart, a cross-attention's value matrix serves two key sources
    assert (covered > 0).sum() == schedule.weights.size
    assert schedule.weights.size / weights.matrix_elements < streamed
    assert 6.5e6 < weights.matrix_elements < 7.0e6  # deploy.md: folded about 6.9 M parameters


@pytest.mark.parametrize("programs", [1, 7, 132])
@pytest.mark.parametrize("mode", ["persistent", "staged", "phased"])
@pytest.mark.parametrize("merge", [True, False])
def test_a_plan_does_every_item_once_and_nobody_waits_for_ever(programs: int, mode: str, merge: bool) -> None:
    """Programs advanced one item at a time, in a random order, as their counters allow: all finish, and no item begins
    before the last of the phase before it has ended."""
    tiles = Tiles(16, 64, programs=programs, merge=merge)
    schedule = build_schedule(weights_of(random_jmt(2, 64)), 2, 5, "float16", tiles, last=True)
    launches = schedule.launches(mode)
    plan = schedule.plan(launches, programs)
    phase_of = {tuple(schedule.table[i, :24]): p for p, (a, n) in enumerate(schedule.phases) for i in range(a, a + n)}
    todo = {
        (tuple(e[:24]), t) for e in schedule.table.tolist() for t in range(e[24])
    }  # fmt: skip
    left = [sum(p == q for e, _ in todo for q in [phase_of[e]]) for p in range(len(schedule.phases))]
    counters, rng = np.zeros(plan.counters, int), np.random.default_rng(0)
    for number in range(len(launches)):
        at, end = plan.index[number, :, 0].copy(), plan.index[number, :, :2].sum(1)
        assert plan.index[number, :, 3].sum() == 1
        while (at < end).any():
            ready = [
                p for p in np.flatnonzero(at < end)
                if plan.rows[at[p], 25] < 0 or counters[plan.rows[at[p], 25]] >= plan.rows[at[p], 26]
            ]  # fmt: skip
            assert ready, "every program waits"
            program = rng.choice(ready)
            row = plan.rows[at[program]].tolist()
            phase = phase_of[tuple(row[:24])]
            assert not any(left[:phase])
            todo.remove((tuple(row[:24]), row[24]))
            left[phase] -= 1
            if row[27] >= 0:
                counters[row[27]] += 1
            at[program] += 1
    assert not todo


def test_the_largest_size() -> None:
    """B = 64, S = 64: the answer at a width that NumPy manages, and offsets that fit the kernel's int32 at 512."""
    model = random_jmt(3, 32)
    features, present = inputs(3, 64, 64, 32, seed=14)
    want, want_share = oracle(model, features, present, last=True)
    schedule = build_schedule(weights_of(model), 64, 64, "float32", Tiles(32, 128), last=True)
    logits, share = run_table(schedule, features.double().numpy(), present.numpy() > 0.5)
    assert relative(torch.from_numpy(logits), want) < 1e-6
    assert want_share is not None
    np.testing.assert_allclose(share, want_share.numpy(), atol=1e-6)
    for last in (True, False):
        size = build_schedule(weights_of(model), 64, 64, "float32", Tiles(32, 128), last=last).work_size
        assert size * 512 // 32 < 2**31


def test_float16_and_int8_packing() -> None:
    weights = weights_of(random_jmt(2, 64))
    exact = build_schedule(weights, 1, 1, "float32", Tiles(16, 64))
    for dtype, bound in (("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 1 / 127)):
        packed = build_schedule(weights, 1, 1, dtype, Tiles(16, 64))  # type: ignore[arg-type]
        assert packed.weights.size == exact.weights.size
        if dtype == "bfloat16":
            values = (packed.weights.astype(np.uint32) << 16).view(np.float32)
            want = torch.from_numpy(exact.weights).bfloat16().float().numpy()
            np.testing.assert_array_equal(values, want)
        elif dtype == "float16":
            error = np.abs(packed.weights.astype(np.float64) - exact.weights)
            assert (error <= bound * np.abs(exact.weights) + 2**-25).all()
        else:
            assert packed.weights.dtype == np.int8
            assert packed.weights.max() == 127


@pytest.mark.parametrize(
    ("sms", "dtype", "want"),
    [
        (8, "float16", Tiles(16, 128, programs=8)),
        (132, "float16", Tiles(16, 64, warps=4, programs=132)),
        (20, "float32", Tiles(16, 128, programs=20, merge=False)),
    ],
)
def test_tiles_follow_the_device(sms: int, dtype: str, want: Tiles) -> None:
    assert choose_tiles(sms, dtype) == want  # type: ignore[arg-type]


def test_refusals_name_the_reason() -> None:
    weights = weights_of(random_jmt(2, 32))
    for batch, steps, dtype, reason in (
        (1, 65, "float16", "S = 65"), (65, 1, "float16", "B = 65"), (1, 1, "float8", "float8"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=reason):
            build_schedule(weights, batch, steps, dtype, Tiles(16, 64))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="48"):
        build_schedule(weights_of(random_jmt(2, 48)), 1, 1, "float16", Tiles(16, 64))
    with pytest.raises(ConfigError, match="key_based"):
        weights_of(JMT(("face", "eda"), 32, ("pain",), attention="key_based", heads=2))
    with pytest.raises(ConfigError, match="joint"):
        weights_of(JMT(("face", "eda"), 32, ("pain",), joint=False, heads=2))
    with pytest.raises(ConfigError, match="unknown launch mode"):
        build_schedule(weights, 1, 1, "float16", Tiles(16, 64)).launches("fast")


def test_module_refuses_other_sizes(device: str) -> None:
    kernel = fused(random_jmt(2, 32), 1, 4, device)
    with pytest.raises(ConfigError, match="laid out"):
        kernel.raw(torch.zeros(2, 1, 5, 32, device=device), torch.ones(1, 5, 2, device=device))
    if device == "cpu":
        with pytest.raises(ConfigError, match="one program at a time"):
            FusedFusion(weights_of(random_jmt(2, 32)), 1, 4, device="cpu", programs=2)


def test_activation_types() -> None:
    assert [activation(d) for d in ("float16", "bfloat16", "float32", "int8")] == [
        "float16", "bfloat16", "float32", "float16",
    ]  # fmt: skip


def test_modes_cover_all_phases_in_order() -> None:
    schedule: Schedule = build_schedule(weights_of(random_jmt(2, 64, 2)), 1, 1, "float16", Tiles(16, 64))
    for mode, count in (("persistent", 1), ("staged", 3), ("phased", len(schedule.phases))):
        ranges = schedule.launches(mode)
        assert len(ranges) == count
        flat = list(itertools.chain.from_iterable(range(a, b) for a, b in ranges))
        assert flat == list(range(len(schedule.phases)))
