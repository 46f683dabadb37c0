"""`calibrate`: from a bundle and windows to a bundle that also holds INT8 graphs, their table and a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..engine.build import load_graphs
from ..engine.bundle import Bundle, write_bundle
from ..engine.fidelity import Fidelity, compare, run_networks
from ..errors import BundleError, DataError
from .quantise import Layer, find_layers, quantise, tensors_of
from .ranges import METHODS, Magnitudes, Method, collect
from .report import calibration_report
from .sensitivity import features, give_back, leave_one_in, sqnr
from .windows import Windows

_SENSITIVITY_CLIPS = 4
_RANGE_CLIPS = 256  # of each modality: more change no range, and a window of 16 steps holds 16


@dataclass(frozen=True)
class Calibrated:
    """The new bundle, the fidelity of its INT8 networks, and the report as written into it."""

    bundle: Bundle
    fidelity: Fidelity
    report: dict[str, Any]


@dataclass
class _Backbone:
    model: onnx.ModelProto
    layers: list[Layer]
    skipped: list[Layer]
    magnitudes: dict[str, Magnitudes]
    clips: NDArray[np.float32]
    method: Method = "mse"
    by_method: dict[Method, float] | None = None
    sensitivity: dict[str, float] | None = None
    returned: list[str] | None = None

    def amax(self, method: Method) -> dict[str, float]:
        return {name: magnitude.amax(method) for name, magnitude in self.magnitudes.items()}


def calibrate(
    bundle: Bundle,
    out: Path,
    windows: Windows,
    *,
    method: Method | None = None,
    seed: int = 0,
    on_step: Callable[[str, float], None] = lambda what, fraction: None,
) -> Calibrated:
    """Quantise every backbone of `bundle` and write the result at `out`.

    Half of `windows` give the ranges, the other half the scores that must hold (|change of CCC| <= 0.01, of
    accuracy <= 0.005). `method` fixes how ranges are read; None compares all four by the features' SQNR.

    Raises BundleError where `out` exists, DataError for fewer than four windows.
    """
    if out.exists():
        raise BundleError(f"{out} exists; choose another --out, or remove it first")
    if len(windows) < 4:
        raise DataError(f"calibration got {len(windows)} windows and needs 4 or more; give more --windows or data")
    task = bundle.task
    windows.check(task)
    order = np.random.default_rng(seed).permutation(len(windows))
    measured = windows.take(np.sort(order[: len(order) // 2]))
    judged = windows.take(np.sort(order[len(order) // 2 :]))
    graphs = load_graphs(bundle)

    backbones = {}
    for j, m in enumerate(task.modalities):
        on_step(f"{m.name}: ranges over {len(measured)} windows", 0.0)
        there = measured.present[:, :, j].reshape(-1) if m.stride else measured.present[:, -1, j]
        clips = measured.clips[m.name].reshape(-1, *m.shape)[there]
        if not len(clips):
            raise DataError(f"no window of {windows.origin} has {m.name}; give data in which every sensor works")
        backbones[m.name] = _ranges(graphs[m.name], clips[_evenly(len(clips), _RANGE_CLIPS)], on_step, m.name)
    for name, backbone in backbones.items():
        _choose_method(backbone, method)
        on_step(f"{name}: sensitivity of {len(backbone.layers)} layers", 0.0)
        count = len(backbone.layers)
        done = iter(range(1, count + 1))
        backbone.sensitivity = leave_one_in(
            backbone.model, backbone.layers, backbone.amax(backbone.method), backbone.clips[:_SENSITIVITY_CLIPS],
            lambda layer, n=name, d=done, c=count: on_step(f"{n}: sensitivity", next(d) / c),  # type: ignore[misc]
        )  # fmt: skip

    exact = {name: graph.SerializeToString() for name, graph in graphs.items()}
    temperature = float(bundle.manifest.get("calibration", {}).get("temperature", 1.0))
    on_step("float32 reference", 0.0)
    reference = run_networks(task, exact, judged)

    known = {(name, frozenset[str]()): reference[0][name] for name in backbones}

    def score(chosen: Mapping[str, list[Layer]]) -> Fidelity:
        """A backbone whose layers were seen before is not run again."""
        keys = {name: (name, frozenset(layer.name for layer in layers)) for name, layers in chosen.items()}
        features = {name: known[key] for name, key in keys.items() if key in known}
        models = _models(exact, backbones, chosen)
        run = run_networks(task, models, judged, features)
        known.update((keys[name], values) for name, values in run[0].items())
        return compare(
            task, exact, models, judged, "int8", temperature=temperature, reference_run=reference, converted_run=run
        )

    on_step("scores with everything INT8", 0.0)
    chosen = {name: list(b.layers) for name, b in backbones.items()}
    whole = fidelity = score(chosen)
    if not whole.holds:
        on_step("giving layers back to FP16", 0.0)
        chosen = _give_back(backbones, chosen, lambda layers: score(layers).holds)
        fidelity = score(chosen)
    models = _models(exact, backbones, chosen)

    table = {
        name: {"method": b.method, "amax": {k: float(v) for k, v in b.amax(b.method).items()}}
        for name, b in backbones.items()
    }
    report = {
        "bundle": bundle.id,
        "seed": seed,
        "windows": {"ranges": len(measured), "scores": len(judged), "origin": windows.origin},
        "fidelity_all_int8": whole.to_dict(),
        "fidelity": fidelity.to_dict(),
        "networks": {name: _describe(b, chosen[name]) for name, b in backbones.items()},
    }
    files: dict[str, bytes] = {f"int8/{name}.onnx": models[name] for name in backbones if chosen[name]}
    files["int8/ranges.json"] = json.dumps(table, indent=1, sort_keys=True).encode()
    files |= {f"reports/calibration/{name}": content for name, content in calibration_report(report).items()}
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema")}
    manifest["name"] = out.name.removesuffix(".jmt")
    manifest["int8"] = {
        "table": "int8/ranges.json",
        "report": "reports/calibration/calibration.json",
        "networks": {
            name: {"onnx": f"int8/{name}.onnx", "kept": report["networks"][name]["fp16"]}  # type: ignore[index]
            for name in backbones
            if chosen[name]
        },
    }
    manifest["calibrated_from"] = bundle.id
    on_step("writing the bundle", 0.0)
    existing = {name: bundle.file(name) for name in bundle.manifest["files"]}
    return Calibrated(write_bundle(out, manifest, {**existing, **files}), fidelity, report)


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


def _ranges(
    model: onnx.ModelProto, clips: NDArray[np.float32], on_step: Callable[[str, float], None], name: str
) -> _Backbone:
    layers = find_layers(model)
    usable = [layer for layer in layers if not layer.why_not]

    def feeds() -> Iterator[dict[str, NDArray[np.float32]]]:
        for i, clip in enumerate(clips):
            on_step(f"{name}: ranges", i / len(clips))
            yield {"clip": clip[None]}

    magnitudes = collect(model, tensors_of(usable), feeds())
    return _Backbone(model, usable, [layer for layer in layers if layer.why_not], magnitudes, clips)


def _choose_method(backbone: _Backbone, method: Method | None) -> None:
    """The method whose fully quantised features have the best SQNR; ties go to the simpler one."""
    if not backbone.layers:
        return
    exact = features(backbone.model, backbone.clips[:_SENSITIVITY_CLIPS])
    scores: dict[Method, float] = {
        name: sqnr(
            exact,
            features(
                quantise(backbone.model, backbone.layers, backbone.amax(name)), backbone.clips[:_SENSITIVITY_CLIPS]
            ),
        )
        for name in METHODS
    }
    backbone.by_method = scores
    backbone.method = method if method is not None else max(scores, key=lambda name: scores[name])


def _models(
    exact: Mapping[str, bytes], backbones: Mapping[str, _Backbone], chosen: Mapping[str, list[Layer]]
) -> dict[str, bytes]:
    models = dict(exact)
    for name, b in backbones.items():
        if chosen[name]:
            models[name] = quantise(b.model, chosen[name], b.amax(b.method)).SerializeToString()
    return models


def _give_back(
    backbones: Mapping[str, _Backbone],
    chosen: Mapping[str, list[Layer]],
    holds: Callable[[Mapping[str, list[Layer]]], bool],
) -> dict[str, list[Layer]]:
    """Over all backbones at once, the most sensitive layer first."""
    everything = [(name, layer) for name, layers in chosen.items() for layer in layers]
    key = {f"{name}/{layer.name}": (name, layer) for name, layer in everything}
    flat = [Layer(k, v.op, v.activation, v.weight, v.residual, v.multiply_adds) for k, (_, v) in key.items()]
    order = sorted(key, key=lambda k: (backbones[key[k][0]].sensitivity or {})[key[k][1].name])

    def group(layers: list[Layer]) -> dict[str, list[Layer]]:
        out: dict[str, list[Layer]] = {name: [] for name in chosen}
        for layer in layers:
            name, original = key[layer.name]
            out[name].append(original)
        return out

    kept, _ = give_back(flat, order, lambda layers: holds(group(list(layers))))
    return group(kept)


def _describe(b: _Backbone, chosen: list[Layer]) -> dict[str, Any]:
    names = {layer.name for layer in chosen}
    by_rule = {layer.name: layer.why_not for layer in b.skipped}
    given_back = [layer.name for layer in b.layers if layer.name not in names]
    return {
        "method": b.method,
        "sqnr_by_method": b.by_method or {},
        "sensitivity": b.sensitivity or {},
        "int8": [asdict(layer) for layer in chosen],
        "fp16": [*by_rule, *given_back],
        "by_rule": by_rule,
        "given_back": given_back,
    }
