"""The joint fusion on a GPU, every way of running it, in one table: `python benchmarks/fusion_gpu.py`.

Batch 1, the papers' width 512, random weights and inputs. Each variant is captured in a CUDA graph of `CALLS`
calls that take turns among `SETS` input sets, and the median over graph replays is reported, per call:

- warm: the calls follow each other, so weights stay in L2 where it holds them;
- cold: before each call a buffer larger than L2 is written; the same graph without the calls is subtracted.

`floor` divides by the time that the folded matrices' bytes need at the bandwidth of a large copy, measured
here (bytes read plus bytes written). Errors are relative L2 against the model in float64. Nothing is printed
unless the kernels' error is at most twice eager PyTorch's in the same precision, their results repeat bit for
bit, and a mask changes them as it changes the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jmt_edge.kernels.layout import weights_of
from jmt_edge.kernels.ops import FusedFusion
from jmt_edge.kernels.reference import Reference
from jmt_edge.kernels.weights import FusionWeights
from jmt_edge.models.fusion import JMT

CALLS, SETS, REPLAYS = 10, 4, 60
FLUSH = 512 << 20  # bytes: more than twice any L2
MODALITIES = ("face", "voice", "eda")
Call = Callable[[Tensor, Tensor], Tensor]  # features (M, 1, S, d), present (1, S, M) -> logits (1, S, outputs)


def median_us(run: Callable[[], None], replays: int = REPLAYS) -> float:
    """Median microseconds of `run` by CUDA events."""
    times = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


def captured(body: Callable[[], None]) -> Callable[[], None]:
    """`body` in a CUDA graph; -> its replay."""
    stream = torch.cuda.Stream()
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


def copy_bandwidth() -> float:
    """Bytes per second of a 1 GiB device-to-device copy, read plus written."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    run = captured(lambda: target.copy_(source))
    return 2 * source.nbytes / (median_us(run) * 1e-6)


def count_kernels(call: Call, features: Tensor, present: Tensor) -> int:
    """Kernels that one call launches, copies and fills included."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    call(features, present)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        call(features, present)
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def stack(model: JMT, out: dict[str, Tensor]) -> Tensor:
    return torch.cat([out[n] if out[n].dim() == 3 else out[n][..., None] for n in model.outputs], -1)


def module_call(model: JMT, run: Callable[..., dict[str, Tensor]]) -> Call:
    return lambda features, present: stack(model, run(dict(zip(model.modalities, features)), present))


def variants(model: JMT, weights: FusionWeights, steps: int, dtype: str) -> dict[str, tuple[Call, bool]]:
    """Name -> (call, whether it is timed inside a CUDA graph)."""
    torch_dtype = getattr(torch, dtype)
    published = JMT(model.modalities, model.dim, model.outputs)
    published.load_state_dict(model.state_dict())
    published = published.to("cuda", torch_dtype).eval()
    folded = Reference(weights, torch_dtype, "cuda")
    found: dict[str, tuple[Call, bool]] = {
        "published, eager": (module_call(model, published), False),
        "published, eager, graph": (module_call(model, published), True),
        "folded, eager, graph": (lambda f, p: folded(f, p)[0], True),
    }
    for mode in ("default", "max-autotune-no-cudagraphs"):
        torch._dynamo.reset()
        name = mode.removesuffix("-no-cudagraphs")  # this script captures the graph, like everyone else's
        found[f"torch.compile {name}, graph"] = (module_call(model, torch.compile(published, mode=mode)), True)
    for mode in ("staged", "persistent"):
        kernel = FusedFusion(weights, 1, steps, dtype, "cuda", mode)  # type: ignore[arg-type]
        found[f"ours, {mode}, graph"] = (lambda f, p, k=kernel: k.raw(f, p)[0], True)  # type: ignore[misc]
    return found


def check(name: str, call: Call, model: JMT, eager_error: float | None, sets: list[tuple[Tensor, Tensor]]) -> float:
    """Relative error over all input sets. Raises SystemExit where ours is wrong or does not repeat."""
    ours = name.startswith("ours")
    difference = total = 0.0
    for features, present in sets:
        got = call(features, present)
        if ours and not all(torch.equal(got, call(features, present)) for _ in range(20)):
            sys.exit(f"{name}: results change between runs; no timing is printed for wrong numbers")
        named = dict(zip(model.modalities, features.double().cpu()))
        want = stack(model, model(named, present.double().cpu()))
        difference += float((got.double().cpu() - want).square().sum())
        total += float(want.square().sum())
    error = (difference / total) ** 0.5
    if ours and (eager_error is None or not error <= 2 * eager_error):
        sys.exit(f"{name}: error {error:.2e}, eager PyTorch has {eager_error:.2e}; no timing is printed")
    return error


def measure(call: Call, graph: bool, sets: list[tuple[Tensor, Tensor]], flush: Tensor) -> tuple[float, float]:
    """Microseconds per call, warm and cold."""

    def calls(flushed: bool, working: bool) -> Callable[[], None]:
        def body() -> None:
            for i in range(CALLS):
                if flushed:
                    flush.fill_(1.0)
                if working:
                    call(*sets[i % len(sets)])

        return body

    wrap = captured if graph else lambda body: body
    warm = median_us(wrap(calls(False, True))) / CALLS
    cold = (median_us(wrap(calls(True, True))) - median_us(wrap(calls(True, False)))) / CALLS
    return warm, cold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 3], choices=[2, 3])
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: run this on a machine with an NVIDIA GPU")
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    properties = torch.cuda.get_device_properties(0)
    flush = torch.empty(FLUSH // 4, device="cuda")
    bandwidth = copy_bandwidth()
    itemsize = getattr(torch, options.dtype).itemsize
    rows: list[dict[str, Any]] = []
    for m in options.modalities:
        model = JMT(MODALITIES[:m], 512, ("valence", "arousal")).double().eval()
        weights = weights_of(model)
        floor = weights.matrix_elements * itemsize / bandwidth * 1e6
        for steps in options.steps:
            sets = []
            for i in range(SETS):
                features = torch.randn(m, 1, steps, 512).to("cuda", getattr(torch, options.dtype))
                present = torch.ones(1, steps, m) if i % 2 == 0 else (torch.rand(1, steps, m) > 0.2).float()
                sets.append((features, present.to("cuda")))
            eager_error: float | None = None
            for name, (call, graph) in variants(model, weights, steps, options.dtype).items():
                error = check(name, call, model, eager_error, sets)
                eager_error = error if eager_error is None else eager_error
                warm, cold = measure(call, graph, sets, flush)
                launches = count_kernels(call, *sets[0])
                rows.append({
                    "M": m, "S": steps, "variant": name, "warm_us": warm, "cold_us": cold, "launches": launches,
                    "warm_to_floor": warm / floor, "cold_to_floor": cold / floor, "error": error,
                })  # fmt: skip
    print(
        f"{properties.name}, {properties.multi_processor_count} multiprocessors, torch {torch.__version__}, "
        f"{options.dtype}, B = 1, d = 512; copy bandwidth {bandwidth / 1e12:.2f} TB/s"
    )
    print("| M | S | variant | µs warm | µs cold | launches | × floor warm | × floor cold | error |")
    print("|---|---|---|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['M']} | {r['S']} | {r['variant']} | {r['warm_us']:.1f} | {r['cold_us']:.1f} | {r['launches']} | "
            f"{r['warm_to_floor']:.1f} | {r['cold_to_floor']:.1f} | {r['error']:.1e} |"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
