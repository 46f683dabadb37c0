"""The joint fusion on a GPU, every way of running it. `scripts/gpu-day.sh` measures with it, in steps.

Batch 1, the papers' width 512, random weights and inputs. Everybody gives what a hop needs, the last step's outputs;
the published module has no way to leave the other steps out and computes all S, and so does each variant whose name
says `all steps`. Timed are replays of a CUDA graph of `CALLS` calls that take turns among `SETS` input sets; the
median is reported, per call:

- warm: the calls follow each other, so weights stay in L2 where it holds them;
- cold: before each call a buffer larger than L2 is read (lines that were written would first have to leave L2); the
  same graph without the calls is subtracted.

`x floor` divides by the time that the folded matrices' bytes need at the bandwidth of a large copy, measured here
(bytes read plus bytes written). Errors are relative L2 against the model in float64 (INT8: against the quantised
matrices in float64). No kernel is timed at a size before its error there is at most twice eager PyTorch's in the
same precision, it repeats bit for bit, and it follows masks as the model does; a kernel that fails this is a row that
says so, and the others are measured all the same.

`phase_rows` times the persistent kernel up to each of its phases: the differences are the phases' own times, barrier
included. The same launch over as many phases without work is what the barriers alone cost.

torch.compile may take minutes a size; what it cannot begin in time is a row that says so.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from published import like
from torch import Tensor

from jmt_edge.engine.work_plan import ROW, Plan, make_plan
from jmt_edge.kernels.layout import weights_of
from jmt_edge.kernels.ops import FusedFusion
from jmt_edge.kernels.reference import Reference, run_table
from jmt_edge.kernels.schedule import DType, activation
from jmt_edge.kernels.weights import FusionWeights
from jmt_edge.models.fusion import JMT

CALLS, SETS, REPLAYS, REPEATS = 10, 4, 60, 20
FLUSH = 512 << 20  # bytes: more than twice any L2
COMPILE_RESERVE = 150  # seconds that one torch.compile may take
MODALITIES = ("face", "voice", "eda", "words")
PUBLISHED = "published, eager"
WRONG = "wrong"
NOTHING, TILES = 31, 24  # an operation without work; the column of the number of row tiles
COMPILED = "published, torch.compile max-autotune, graph"
OURS = "ours, persistent, graph"
Call = Callable[[Tensor, Tensor], Tensor]  # features (M, 1, S, d), present (1, S, M) -> logits (1, R, outputs)
Inputs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Variant:
    """One way of running the fusion. `graph`: timed inside a CUDA graph. `compiles`: its first call takes minutes."""

    name: str
    call: Call
    graph: bool = True
    compiles: bool = False


@dataclass(frozen=True)
class Row:
    """Microseconds a call, kernels it launches, times the floor, relative error; `not_measured` says why not."""

    M: int
    S: int
    variant: str
    warm_us: float | None = None
    cold_us: float | None = None
    launches: int | None = None
    warm_to_floor: float | None = None
    cold_to_floor: float | None = None
    error: float | None = None
    not_measured: str = ""


@dataclass(frozen=True)
class PhaseRow:
    """Microseconds of the persistent kernel's launch up to and with `phase`, and of that phase and its barrier alone.

    `phase` -1: as many phases as the schedule has, all of them empty; `us` is then per barrier.
    """

    M: int
    S: int
    phase: int
    items: int
    until_us: float
    us: float
    cold_until_us: float | None = None
    cold_us: float | None = None


class Gpu:
    """What only a GPU can tell: by CUDA events, CUDA graphs and torch's profiler."""

    def __init__(self) -> None:
        self._flush = torch.zeros(FLUSH // 4, device="cuda")
        self._largest = torch.zeros((), device="cuda")

    def facts(self) -> dict[str, Any]:
        """The device; `bandwidth` in bytes a second."""
        properties = torch.cuda.get_device_properties(0)
        return {
            "name": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "sm": f"sm_{properties.major}{properties.minor}",
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "l2_mb": round(properties.L2_cache_size / 1e6, 1),
            "cuda": torch.version.cuda,
            "bandwidth": self._copy_bandwidth(),
        }

    def microseconds(self, variant: Variant, sets: Sequence[Inputs]) -> tuple[float, float]:
        """Per call, warm and cold."""

        def calls(flushed: bool, working: bool) -> Callable[[], None]:
            def body() -> None:
                for i in range(CALLS):
                    if flushed:
                        torch.amax(self._flush, 0, out=self._largest)
                    if working:
                        variant.call(*sets[i % len(sets)])

            return captured(body) if variant.graph else body

        warm = median_us(calls(False, True)) / CALLS
        cold = (median_us(calls(True, True)) - median_us(calls(True, False))) / CALLS
        return warm, cold

    def launches(self, variant: Variant, inputs: Inputs) -> int:
        """Kernels that one call launches, copies and fills included."""
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        variant.call(*inputs)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=activities) as profile:
            variant.call(*inputs)
            torch.cuda.synchronize()
        return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())

    def _copy_bandwidth(self) -> float:
        """Bytes per second of a 1 GiB device-to-device copy, read plus written."""
        source = torch.randn(1 << 28, device="cuda")
        target = torch.empty_like(source)
        return 2 * source.nbytes / (median_us(lambda: target.copy_(source)) * 1e-6)  # in a graph: a slower copy engine


def median_us(run: Callable[[], object]) -> float:
    """Median microseconds of `run` by CUDA events."""
    times = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


def captured(body: Callable[[], object]) -> Callable[[], None]:
    """`body` in a CUDA graph; -> its replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        body()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        body()
    for _ in range(5):
        graph.replay()
    torch.cuda.synchronize()
    return graph.replay


@dataclass
class Case:
    """One size: the model in float64, its kernels' matrices, and the kernels."""

    model: JMT
    weights: FusionWeights
    steps: int
    dtype: DType
    device: str
    kernels: dict[str, FusedFusion]

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, activation(self.dtype))
        return found


def make_case(
    m: int, steps: int, dim: int, dtype: DType, device: str, kernels: bool = True, triton: bool = True
) -> Case:
    """Random weights. The kernels: ours staged and persistent, persistent for all steps, and Triton's; or none."""
    model = JMT(MODALITIES[:m], dim, ("valence", "arousal")).double().eval()
    weights = weights_of(model)
    if not kernels:
        return Case(model, weights, steps, dtype, device, {})
    made = {
        "ours, staged, graph": FusedFusion(weights, 1, steps, dtype, device, "staged", last=True),
        OURS: FusedFusion(weights, 1, steps, dtype, device, "persistent", last=True),
        "ours, persistent, all steps, graph": FusedFusion(weights, 1, steps, dtype, device, "persistent"),
        "ours, Triton, graph": FusedFusion(weights, 1, steps, dtype, device, "persistent", last=True, kernel="triton"),
    }
    if not triton:
        del made["ours, Triton, graph"]
    return Case(model, weights, steps, dtype, device, made)


def random_inputs(case: Case, masked: bool) -> Inputs:
    m = len(case.model.modalities)
    features = torch.randn(m, 1, case.steps, case.model.dim).to(case.device, case.torch_dtype)
    present = (torch.rand(1, case.steps, m) > 0.2).float() if masked else torch.ones(1, case.steps, m)
    return features, present.to(case.device)


def side_by_side(model: JMT, out: dict[str, Tensor]) -> Tensor:
    return torch.cat([out[n] if out[n].dim() == 3 else out[n][..., None] for n in model.outputs], -1)


def exact(case: Case, inputs: Inputs) -> Tensor:
    """The model's logits in float64, every step."""
    features, present = (x.double().cpu() for x in inputs)
    return side_by_side(case.model, case.model(dict(zip(case.model.modalities, features)), present))


def relative(pairs: Sequence[tuple[Tensor, Tensor]], results: int) -> float:
    """Relative L2 error over all pairs (got, want), on the last `results` steps."""
    both = [(got[:, -results:].double().cpu(), want[:, -results:]) for got, want in pairs]
    difference = sum(float((got - want).square().sum()) for got, want in both)
    return float((difference / sum(float(want.square().sum()) for _, want in both)) ** 0.5)


def check_kernels(case: Case) -> tuple[dict[str, float], dict[str, str]]:
    """Each kernel's error, half of the inputs masked; and what is wrong with those that are wrong."""
    sets = [random_inputs(case, masked=i % 2 == 1) for i in range(SETS)]
    want = [exact(case, x) for x in sets]
    reference = Reference(case.weights, case.torch_dtype, case.device)
    eager = [reference(*x)[0] for x in sets]
    errors, wrong = {}, {}
    for name, kernel in case.kernels.items():
        results = kernel.schedule.results
        allowed = 2 * relative(list(zip(eager, want)), results)
        got = [kernel.raw(*x)[0] for x in sets]
        if not all(torch.equal(kernel.raw(*x)[0], first) for x, first in zip(sets, got) for _ in range(REPEATS)):
            wrong[name] = "results change between runs"
            continue
        if case.dtype == "int8":
            tables = [run_table(kernel.schedule, f.double().cpu().numpy(), p.cpu().numpy() > 0.5)[0] for f, p in sets]
            pairs = [(g, torch.from_numpy(t)) for g, t in zip(got, tables)]
        else:
            pairs = list(zip(got, want))
        errors[name] = relative(pairs, results)
        if not errors[name] <= allowed:
            wrong[name] = f"error {errors[name]:.2e}, allowed {allowed:.2e} (twice eager PyTorch's)"
    return errors, wrong


def variants(case: Case) -> Iterator[Variant]:
    """What is timed, in the table's order; made one by one, so that each has the device to itself."""
    model = case.model
    published = like(copy.deepcopy(model)).to(case.device, case.torch_dtype)
    last_step = copy.deepcopy(model).to(case.device, case.torch_dtype)
    folded = Reference(case.weights, case.torch_dtype, case.device)

    def of_published(run: Callable[..., dict[str, Tensor]]) -> Call:
        return lambda features, present: side_by_side(model, run(*features))

    def of_ours(run: Callable[..., dict[str, Tensor]]) -> Call:
        return lambda features, present: side_by_side(
            model, run(dict(zip(model.modalities, features)), present, False, True)
        )

    yield Variant(PUBLISHED, of_published(published), graph=False)
    yield Variant("published, eager, graph", of_published(published))
    yield Variant("folded, eager, all steps, graph", lambda f, p: folded(f, p)[0])
    yield Variant("folded, eager, graph", lambda f, p: folded(f, p, True)[0])
    for name, kernel in case.kernels.items():
        yield Variant(name, lambda f, p, k=kernel: k.raw(f, p)[0])  # type: ignore[misc]
    # this script captures the graph, like everyone else's
    for name, mode in ((COMPILED, "max-autotune-no-cudagraphs"), (COMPILED.replace("max-autotune", "default"), None)):
        torch._dynamo.reset()
        yield Variant(name, of_published(torch.compile(published, mode=mode)), compiles=True)
    torch._dynamo.reset()
    compiled = torch.compile(last_step, mode="max-autotune-no-cudagraphs")
    yield Variant("our module, torch.compile max-autotune, graph", of_ours(compiled), compiles=True)


def measure(
    meter: Gpu,
    bandwidth: float,
    sizes: Sequence[tuple[int, int]],
    dtype: DType,
    device: str,
    dim: int,
    deadline: float,
    compiling: bool,
    emit: Callable[[Row], None] = lambda row: None,
    triton: bool = True,
) -> list[Row]:
    """At each size, check the kernels, then time every variant. `deadline`: of `time.monotonic()`; `emit` gets each
    row as soon as it is measured."""
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        emit(row)

    for m, steps in sizes:
        case = make_case(m, steps, dim, dtype, device, triton=triton)
        errors, wrong = check_kernels(case)
        sets = [random_inputs(case, masked=False) for _ in range(SETS)]
        want = [exact(case, x) for x in sets]
        itemsize = 1 if dtype == "int8" else case.torch_dtype.itemsize
        floor = case.weights.matrix_elements * itemsize / bandwidth * 1e6
        for variant in variants(case):
            if variant.name in wrong:
                add(Row(m, steps, variant.name, not_measured=f"{WRONG}: {wrong[variant.name]}"))
                continue
            if variant.compiles and (not compiling or time.monotonic() + COMPILE_RESERVE > deadline):
                reason = "no time left" if compiling else "left out"
                add(Row(m, steps, variant.name, not_measured=reason))
                continue
            try:
                got = [variant.call(*x) for x in sets]
                launches = meter.launches(variant, sets[0])
                warm, cold = meter.microseconds(variant, sets)
            except Exception as problem:  # the compiler's errors share no base class
                if not variant.compiles:
                    raise
                add(Row(m, steps, variant.name, not_measured=" ".join(str(problem).split())[:100] or "failed"))
                continue
            error = errors.get(variant.name, relative(list(zip(got, want)), 1))
            add(Row(m, steps, variant.name, warm, cold, launches, warm / floor, cold / floor, error))
    return rows


def phase_rows(meter: Gpu, case: Case, emit: Callable[[PhaseRow], None] = lambda row: None) -> list[PhaseRow]:
    """The persistent kernel's time, phase by phase, and that of its barriers alone."""
    kernel, m = case.kernels[OURS], len(case.model.modalities)
    sets = [random_inputs(case, masked=False) for _ in range(SETS)]
    schedule, count = kernel.schedule, len(kernel.schedule.phases)
    rows: list[PhaseRow] = []

    def time_of(plan: Plan) -> tuple[float, float]:
        kernel.plan, kernel.index = (torch.from_numpy(x).to(case.device) for x in (plan.rows, plan.index))
        kernel.barrier, kernel.pitch = torch.zeros(plan.counters, dtype=torch.int32, device=case.device), plan.pitch
        return meter.microseconds(Variant("phases", lambda f, p: kernel.raw(f, p)[0]), sets)

    before = (0.0, 0.0)
    for i, (first, entries) in enumerate(schedule.phases.tolist()):
        warm, cold = time_of(schedule.plan([(0, i + 1)], kernel.programs))
        items = int(schedule.table[first : first + entries, TILES].sum())
        rows.append(PhaseRow(m, case.steps, i, items, warm, warm - before[0], cold, cold - before[1]))
        emit(rows[-1])
        before = warm, cold
    times = []
    for phases in (1, count):
        nothing = np.zeros((phases * kernel.programs, ROW), np.int32)  # an item of an operation that there is not
        nothing[:, 0], nothing[:, 5], nothing[:, TILES] = NOTHING, np.arange(len(nothing)), 1
        every = np.array([(i * kernel.programs, kernel.programs) for i in range(phases)], np.int32)
        times.append(time_of(make_plan(nothing, every, [(0, phases)], kernel.programs))[0])
    rows.append(PhaseRow(m, case.steps, -1, 0, times[1], (times[1] - times[0]) / (count - 1)))
    emit(rows[-1])
    time_of(schedule.plan(schedule.launches("persistent"), kernel.programs))
    return rows
