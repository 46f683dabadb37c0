"""From a bundle to a bundle with device engines: convert, check against float32, build, and include the report.

The order matters: a conversion is compared with float32 before anything is built from it, so a plan that changes the
scores by more than the limit is never written without the report saying so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import onnx

from ..clips.window_set import WindowSet
from ..engine.bundle import Bundle, write_bundle
from ..engine.device import current_device
from ..engine.session import random_feeds
from ..engine.tensorrt_api import Library, open_library
from ..errors import BackendError, BundleError, ConfigError, short
from .choice import choose, cpu_runtimes, device_runners, open_kernel, report_of, time_in_turns
from .fidelity import Comparison, Fidelity, FusionCall
from .fp16 import to_fp16
from .plan import require_target
from .plan_cache import PlanCache
from .plan_maker import OPSET, Network, PlanMaker
from .report import build_report
from .torch_tensorrt import open_torch_tensorrt

Precision = Literal["fp32", "fp16", "int8"]
Builder = Literal["tensorrt", "tensorrt-rtx", "torch-tensorrt", "onnxruntime"]


@dataclass(frozen=True)
class Built:
    """The new bundle, the fidelity of what it holds, and the report as written into it."""

    bundle: Bundle
    fidelity: Fidelity
    report: dict[str, Any]


def choose_builder(name: str, target: str) -> tuple[Builder, str]:
    """The builder and why. `auto`: TensorRT if it and a GPU are available, TensorRT-RTX for another target it can
    compile for, else onnxruntime. Raises BackendError where an explicit choice cannot work here.
    """
    if name in ("tensorrt", "tensorrt-rtx", "torch-tensorrt"):
        if target == "current" or name == "torch-tensorrt":
            _need_device(name, target)
        if name == "torch-tensorrt":
            open_torch_tensorrt()
        else:
            open_library(name)  # type: ignore[arg-type]
        return name, "as requested"  # type: ignore[return-value]
    if name == "onnxruntime":
        if target != "current":
            raise BackendError(f"onnxruntime engines run on any CPU, not on {target}; leave --target out")
        return name, "as requested"  # type: ignore[return-value]
    if target != "current":
        open_library("tensorrt-rtx")
        return "tensorrt-rtx", f"only TensorRT-RTX compiles for a device that is not here ({target})"
    try:
        device = current_device()
        open_library("tensorrt")
        return "tensorrt", f"{device.name} and TensorRT are available"
    except BackendError as reason:
        return "onnxruntime", f"no TensorRT device: {reason}"


def _need_device(builder: str, target: str) -> None:
    """Raises BackendError where `builder` would have no device to build on."""
    if target != "current":
        raise BackendError(f"{builder} builds on the device itself, not for {target}; use --builder tensorrt-rtx")
    try:
        current_device()
    except BackendError as reason:
        other = "--builder onnxruntime" if builder != "tensorrt-rtx" else "--target sm_86 or another"
        raise BackendError(f"--builder {builder} has no device to build on: {reason}, or give {other}") from None


def require_possible(
    path: Path,
    manifest: Mapping[str, Any],
    *,
    precision: str,
    builder: Builder,
    target: str,
    batch: tuple[int, int, int] | None,
) -> None:
    """Raises BackendError where `builder` cannot build the bundle at `path` so. It reads no graph.

    `precision` may be `auto`, which leaves out what the bundle cannot do (`left_out`).
    """
    if precision == "int8" and "int8" not in manifest:
        raise BackendError(f"{path} has no INT8 calibration; run `jmt-edge calibrate {path}` first")
    if builder == "torch-tensorrt":
        if precision != "fp32" or batch:
            raise BackendError(
                "--builder torch-tensorrt builds the modules as they are, in float32 and at batch 1; give --precision "
                "fp32 without --batch, or use --builder tensorrt"
            )
        return
    if builder == "onnxruntime":
        if precision == "fp16":
            raise BackendError(
                "onnxruntime's CPU kernels gain nothing from FP16 (they convert it to FP32); give --precision int8 or "
                "auto, or build for a GPU with --builder tensorrt-rtx --target sm_86"
            )
        if batch:
            raise BackendError("--batch is of a plan, and onnxruntime graphs take any batch; leave it out")
        return
    if precision == "auto" and target != "current":
        raise BackendError(
            f"--precision auto times engines on this machine, and plans for {target} cannot run here; give "
            "--precision fp16 or int8"
        )
    library = open_library(builder)
    if target != "current":
        require_target(library, target)
    if precision == "int8":
        library.require("explicit_qdq")


def left_out(manifest: Mapping[str, Any], precision: str) -> list[str]:
    """What `auto` cannot try on a bundle, with the remedy, for the screen and the report."""
    if precision == "auto" and "int8" not in manifest:
        return ["INT8: the bundle has no calibration, which `jmt-edge calibrate` adds"]
    return []


def parse_batch(text: str | None) -> tuple[int, int, int] | None:
    """`MIN,OPT,MAX`. Raises ConfigError for anything else."""
    if text is None:
        return None
    try:
        low, best, high = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--batch '{text}' is not MIN,OPT,MAX; write for example --batch 1,4,16") from None
    if not 1 <= low <= best <= high:
        raise ConfigError(f"--batch {text} is not in order; give 1 <= MIN <= OPT <= MAX")
    return low, best, high


def load_graphs(bundle: Bundle) -> dict[str, onnx.ModelProto]:
    """Every network's float32 ONNX graph. Raises BundleError for a graph that is not readable ONNX."""
    graphs = {}
    for name, entry in bundle.networks.items():
        data = bundle.exported_graph(name)
        path = bundle.path / entry["onnx"]
        try:
            model = onnx.load_from_string(data)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf and checker errors share no base class
            raise BundleError(
                f"{path} is not a readable ONNX graph ({short(error)}); export the bundle again"
            ) from None
        opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        if opset > OPSET:
            raise BundleError(f"{path} uses ONNX opset {opset}, engines are built from {OPSET}; export it again")
        graphs[name] = model
    return graphs


def convert(
    bundle: Bundle, graphs: Mapping[str, onnx.ModelProto], precision: Precision, half: bool = True
) -> dict[str, Network]:
    """Each network at `precision`; for INT8, those that `calibrate` quantised, and the rest in FP16 if `half`.
    `precision` is one that `require_possible` lets pass.
    """
    quantised: dict[str, Any] = bundle.manifest.get("int8", {}).get("networks", {}) if precision == "int8" else {}
    out = {}
    for name, graph in graphs.items():
        if precision == "fp32" or (precision == "int8" and name not in quantised and not half):
            out[name] = Network(name, graph.SerializeToString(), "fp32")
            continue
        source, kept, label = graph, (), "fp16"
        if name in quantised:
            source = onnx.load_from_string(bundle.graph(quantised[name]["onnx"]))
            kept, label = tuple(quantised[name].get("kept", ())), "int8"
            if not half:
                out[name] = Network(name, source.SerializeToString(), "int8", kept, "calibrated Q/DQ")
                continue
        result = to_fp16(source)
        notes = [f"{len(result.kept)} nodes in FP32 by rule"]
        if label == "int8":
            notes = ["calibrated Q/DQ", *filter(None, [quantised[name].get("note", "")]), *notes]
        note = "; ".join(notes)
        out[name] = Network(name, result.model.SerializeToString(), label, (*kept, *result.kept), note)
    return out


def build(
    bundle: Bundle,
    out: Path,
    *,
    precision: Literal["fp32", "fp16", "int8", "auto"],
    builder: Builder,
    why: str,
    target: str,
    windows: WindowSet,
    batch: tuple[int, int, int] | None = None,
    graphs: Mapping[str, onnx.ModelProto] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    extra_manifest: Mapping[str, Any] | None = None,
    cache: PlanCache | None = None,
    on_step: Callable[[str, float], None] = lambda what, fraction: None,
) -> Built:
    """Build engines for every network and write the new bundle at `out` (which must not exist).

    `batch` is (min, opt, max) for engines with a dynamic first axis; None gives static batch 1, which live uses.
    `graphs`: those of `load_graphs`, if the caller has them already. `on_step(what, fraction)` reports progress.

    Raises BackendError or BundleError in one sentence; then nothing is left at `out`.
    """
    if out.exists():
        raise BundleError(f"{out} exists; choose another --out, or remove it first")
    require_possible(bundle.path, bundle.manifest, precision=precision, builder=builder, target=target, batch=batch)
    graphs = graphs or load_graphs(bundle)
    exact = {name: graph.SerializeToString() for name, graph in graphs.items()}
    compare = Comparison(bundle, windows, exact, on_step)
    files: dict[str, bytes] = {}
    others: dict[str, dict[str, Any]] = {}
    timings: dict[str, Any] = {}
    if builder == "onnxruntime":
        choices, timings = _for_cpu(bundle, graphs, precision, compare, on_step)
        networks = choices["onnxruntime"]
        checked = [_check(compare, chosen) for chosen in choices.values()]
        fidelity = next((f for f in checked if not f.holds), checked[0])
        others = {runtime: _cpu_entry(bundle, chosen, runtime) for runtime, chosen in choices.items()}
        engine = others.pop("onnxruntime")
    else:
        library = open_torch_tensorrt() if builder == "torch-tensorrt" else open_library(builder)
        maker = PlanMaker(bundle, library, target, batch, cache or PlanCache(), on_step)
        if precision == "auto":
            with _with_files(bundle, extra_files, extra_manifest) as whole:
                networks, chosen, timings, fidelity = _for_device(whole, graphs, maker, compare, on_step)
        else:
            networks, chosen = convert(bundle, graphs, precision), {}
            fidelity = _check(compare, networks)
        files, engine = maker.entry(networks)
        engine |= chosen
    engine |= {"builder": builder, "why": why, "precision": precision, "timings": timings}
    engine["left_out"] = left_out(bundle.manifest, precision)
    report = {
        "bundle": bundle.id,
        "task": bundle.task.name,
        "engine": engine,
        "fidelity": fidelity.to_dict(),
        "networks": {
            n.name: {"precision": n.precision, "kept": list(n.kept), "note": n.note} for n in networks.values()
        },
    }
    key = builder if builder == "onnxruntime" else f"{builder}-{engine['target']}"
    folder = f"reports/{key}-{precision}"
    files |= {f"{folder}/{name}": content for name, content in build_report(report).items()}
    files |= dict(extra_files or {})
    engine["report"] = f"{folder}/build.json"
    manifest = kept_manifest(bundle) | dict(extra_manifest or {})
    manifest["name"] = out.name.removesuffix(".jmt")
    before = dict(bundle.manifest.get("engines", {}))
    if builder == "onnxruntime":
        before.pop("openvino", None)  # an earlier choice, which this one replaces
    manifest["engines"] = {**before, key: engine, **others}
    manifest["built_from"] = bundle.id
    on_step("writing the bundle", 0.0)
    return Built(write_bundle(out, manifest, {**bundle.files, **files}), fidelity, report)


def _check(compare: Comparison, networks: Mapping[str, Network], fusion: FusionCall | None = None) -> Fidelity:
    """`fusion` replaces the fusion network where something other than an ONNX graph computes it."""
    precisions = {n.precision for n in networks.values()}
    narrowest = next((p for p in ("int8", "fp16") if p in precisions), "fp16" if fusion else "fp32")
    models = {name: network.model for name, network in networks.items()}
    return compare(models, narrowest, f"{narrowest} against float32", fusion)


def kept_manifest(bundle: Bundle) -> dict[str, Any]:
    """What a bundle that is made of another one takes over."""
    return {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema")}


@contextmanager
def _with_files(
    bundle: Bundle, files: Mapping[str, bytes] | None, manifest: Mapping[str, Any] | None
) -> Iterator[Bundle]:
    """The bundle with the files that this build adds (cubins), while they are timed."""
    if not files:
        yield bundle
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / bundle.path.name
        yield write_bundle(path, kept_manifest(bundle) | dict(manifest or {}), {**bundle.files, **files})


def build_from_modules(bundle: Bundle, library: Library) -> dict[str, tuple[bytes, str]]:
    """Engines of every network by torch-tensorrt, for this machine's GPU: network -> (plan, precision)."""
    maker = PlanMaker(bundle, library, "current", None, PlanCache(), lambda what, fraction: None)
    made = {name: maker.make(network) for name, network in convert(bundle, load_graphs(bundle), "fp32").items()}
    return {name: (m.data, m.precision) for name, m in made.items()}


def _for_device(
    bundle: Bundle,
    graphs: Mapping[str, onnx.ModelProto],
    maker: PlanMaker,
    compare: Comparison,
    on_step: Callable[[str, float], None],
) -> tuple[dict[str, Network], dict[str, Any], dict[str, Any], Fidelity]:
    """The fastest faithful networks on this machine's GPU, what runs the fusion, all timings, the fidelity.

    FP16 (float32 where FP16 exceeds the limits), INT8 where calibrated, and the fused kernel where the bundle has one.
    """
    assert maker.device is not None
    wide = convert(bundle, graphs, "fp16")
    if not _check(compare, wide).holds:
        wide = convert(bundle, graphs, "fp32")
    small = convert(bundle, graphs, "int8") if "int8" in bundle.manifest else {}
    small = {name: network for name, network in small.items() if network.precision == "int8"}
    ways = {name: {wide[name].precision: wide[name]} for name in wide}
    for name, network in small.items():
        ways[name]["int8"] = network
    plans = {
        precision: {name: maker.make(of[precision]) for name, of in ways.items() if precision in of}
        for precision in dict.fromkeys(p for of in ways.values() for p in of)
    }
    kernel, no_kernel = open_kernel(bundle, maker.device.sm, maker.device.sms)
    try:
        with device_runners(bundle, maker.library, plans, kernel) as runners:
            times = {}
            for i, (name, of) in enumerate(runners.items()):
                on_step(f"timing {name}", i / len(runners))
                times[name] = time_in_turns(of, runs=200, warm=20)

        def networks(choice: Mapping[str, str]) -> dict[str, Network]:
            """Where the kernel computes the fusion, its plan is the wide one, for other backends."""
            return {name: ways[name].get(way, wide[name]) for name, way in choice.items()}

        def fidelity(choice: Mapping[str, str]) -> Fidelity:
            return _check(compare, networks(choice), kernel if choice["fusion"] == "cubin" else None)

        choice = choose(times, lambda asked: fidelity(asked).holds)
        found = fidelity(choice)
    finally:
        if kernel is not None:
            kernel.close()
    runs = "cubin" if choice["fusion"] == "cubin" else "plan"
    chosen = {"fusion": runs} | ({"no_cubin": no_kernel} if no_kernel else {})
    return networks(choice), chosen, {maker.library.name: report_of(times, choice)}, found


def _for_cpu(
    bundle: Bundle,
    graphs: Mapping[str, onnx.ModelProto],
    precision: Literal["fp32", "fp16", "int8", "auto"],
    compare: Comparison,
    on_step: Callable[[str, float], None],
) -> tuple[dict[str, dict[str, Network]], dict[str, Any]]:
    """Runtime -> its networks, and the timings of `auto`. Without an entry, OpenVINO runs those of onnxruntime."""
    exact = convert(bundle, graphs, "fp32")
    if precision == "fp32" or (precision == "auto" and "int8" not in bundle.manifest):
        return {"onnxruntime": exact}, {}
    small = convert(bundle, graphs, "int8", half=False)
    if precision == "int8":
        return {"onnxruntime": small}, {}
    choices: dict[str, dict[str, Network]] = {}
    timings: dict[str, Any] = {}
    quantised = [name for name, network in small.items() if network.precision == "int8"]
    for runtime, open_graph in cpu_runtimes().items():
        times = {name: {"fp32": 0.0} for name in exact}
        for i, name in enumerate(quantised):
            on_step(f"timing {name} in {runtime}", i / len(quantised))
            feeds = random_feeds(bundle.task, name)
            opened = {"fp32": open_graph(exact[name].model), "int8": open_graph(small[name].model)}
            times[name] = time_in_turns({way: partial(run, feeds) for way, run in opened.items()})

        def networks(choice: Mapping[str, str]) -> dict[str, Network]:
            return {name: (small if way == "int8" else exact)[name] for name, way in choice.items()}

        choice = choose(times, lambda asked: _check(compare, networks(asked)).holds)
        choices[runtime] = networks(choice)
        timings[runtime] = report_of({name: times[name] for name in quantised}, choice)
    return choices, timings


def _cpu_entry(bundle: Bundle, networks: Mapping[str, Network], runtime: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, network in networks.items():
        file = bundle.networks[name]["onnx"]
        if network.precision == "int8":
            file = bundle.manifest["int8"]["networks"][name]["onnx"]
        entries[name] = {"onnx": file, "precision": network.precision}
    return {"library_version": str(import_module(runtime).__version__), "target": "cpu", "networks": entries}
