"""`jmt-edge calibrate`: from a bundle and windows to a bundle with INT8 graphs, their ranges and a report."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..clips.window_set import WindowSet
from ..compiler.build import Built, kept_manifest, load_graphs
from ..compiler.fidelity import Comparison, Fidelity, fusion_feeds, run_backbones
from ..engine.bundle import Bundle, write_bundle
from ..errors import BundleError, DataError
from .quantise import QuantisableLayer, find_layers, quantise, tensors_of
from .ranges import METHODS, Magnitudes, Method, collect
from .report import kept_sentence, quantisation_report
from .scales import equalise
from .sensitivity import Feed, answers, give_back, leave_one_in, sqnr
from .sources import evenly

Layers = list[QuantisableLayer]
Chosen = Mapping[str, Layers]  # by network
# Number of clips (windows, for the fusion): (fewest, most, multiply-adds in all), so that small networks use many, and
# one of 20 G multiply-adds per clip takes minutes on two cores. Clips are spread over all windows.
_RANGES = (32, 256, 1.3e12)
_SENSITIVITY = (2, 32, 1e10)  # run once for each layer
_QUESTIONS = (3, 64, 1e13)  # how often all windows are run to find the layers to return to FP16


@dataclass
class _Network:
    """A backbone or the fusion during quantisation; `outputs` are the tensors whose error is measured."""

    name: str
    model: onnx.ModelProto
    outputs: tuple[str, ...]
    layers: Layers
    skipped: Layers
    sample: list[Feed] = field(default_factory=list)
    method: Method = "mse"
    measured: dict[str, float] = field(default_factory=dict)
    amax: dict[str, float] = field(default_factory=dict)  # of `equal`, which the INT8 graph is made of
    equal: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    by_method: dict[Method, float] = field(default_factory=dict)
    sensitivity: dict[str, float] = field(default_factory=dict)

    def spread(self, count: int, bounds: tuple[int, int, float]) -> NDArray[np.int64]:
        """Indices into `count` feeds, evenly apart, as many as `bounds` allow."""
        return evenly(count, _within(bounds, self.cost))

    @property
    def cost(self) -> int:
        """Multiply-adds of one clip."""
        return sum(layer.multiply_adds for layer in (*self.layers, *self.skipped))

    def quantised(self, layers: Layers) -> onnx.ModelProto:
        return quantise(self.equal, layers, self.amax)


def quantise_bundle(
    bundle: Bundle,
    out: Path,
    windows: WindowSet,
    *,
    method: Method | None = None,
    seed: int = 0,
    on_step: Callable[[str, float], None] = lambda what, fraction: None,
) -> Built:
    """Quantise every backbone and the fusion of `bundle`, and write the result to `out`.

    Half of `windows` give the ranges, the other half the scores, which must hold (|change of CCC| <= 0.01, of accuracy
    <= 0.005). method: how ranges are chosen; None takes the best of all four by the SQNR of each network's outputs.
    on_step: called with a step's name and the fraction done.

    Raises BundleError where `out` exists, DataError for fewer than four windows.
    """
    if out.exists():
        raise BundleError(f"{out} exists; choose another --out, or remove it first")
    if len(windows) < 4:
        raise DataError(f"quantising needs 4 or more windows and got {len(windows)}; give more --windows or more data")
    task = bundle.task
    windows.check(task)
    order = np.random.default_rng(seed).permutation(len(windows))
    measured = windows.take(np.sort(order[: len(order) // 2]))
    judged = windows.take(np.sort(order[len(order) // 2 :]))
    graphs = load_graphs(bundle)
    exact = {name: graph.SerializeToString() for name, graph in graphs.items()}

    networks = {}
    for m in task.modalities:
        clips = measured.clips[m.name]
        rows = clips.distinct(measured.present_mask(task, m.name))
        if not len(rows):
            raise DataError(f"no window of {windows.origin} has {m.name}; give data with all sensors present")
        networks[m.name] = _prepare(
            m.name, graphs[m.name], ("features",), [{"clip": clips.stored[row][None]} for row in rows], on_step
        )
    features = run_backbones(task, exact, measured, None, lambda name, f: on_step(f"{name}: features", f))
    feeds = list(fusion_feeds(task, features, measured))
    networks["fusion"] = _prepare("fusion", graphs["fusion"], task.outputs, feeds, on_step)
    for network, magnitudes in networks.values():
        _choose_method(network, magnitudes, method)
        _sensitivity(network, on_step)
    found = {name: network for name, (network, _) in networks.items()}

    compare = Comparison(bundle, judged, exact, on_step)

    def score(what: str, chosen: Chosen) -> Fidelity:
        return compare(_models(exact, found, chosen), "int8", what)

    chosen = {name: list(network.layers) for name, network in found.items()}
    whole = fidelity = score("scores with everything INT8", chosen)
    if not whole.holds:
        runs = {name: len(judged.clips[name].distinct(judged.present_mask(task, name))) for name in task.names}
        questions = _within(_QUESTIONS, sum(count * found[name].cost for name, count in runs.items()))
        asked = itertools.count()  # the first asks about everything in INT8, which is known

        def holds(layers: Chosen) -> bool:
            return score(f"giving layers back to FP16 ({next(asked)})", layers).holds

        chosen = _give_back(found, chosen, holds, questions)
        fidelity = score("scores as shipped", chosen)
    models = _models(exact, found, chosen)

    table = {name: {"method": n.method, "measured": n.measured, "amax": n.amax} for name, n in found.items()}
    described = {name: _describe(n, chosen[name]) for name, n in found.items()}
    report = {
        "bundle": bundle.id,
        "seed": seed,
        "windows": {"ranges": len(measured), "scores": len(judged), "origin": windows.origin},
        "fidelity_all_int8": whole.to_dict(),
        "fidelity": fidelity.to_dict(),
        "networks": described,
    }
    files: dict[str, bytes] = {f"int8/{name}.onnx": models[name] for name in found if chosen[name]}
    files["int8/ranges.json"] = json.dumps(table, indent=1, sort_keys=True).encode()
    files |= {f"reports/calibration/{name}": content for name, content in quantisation_report(report).items()}
    manifest = kept_manifest(bundle)
    manifest["name"] = out.name.removesuffix(".jmt")
    manifest["int8"] = {
        "table": "int8/ranges.json",
        "report": "reports/calibration/calibration.json",
        "networks": {
            name: {"onnx": f"int8/{name}.onnx", "kept": row["fp16"], "note": kept_sentence(row)}
            for name, row in described.items()
            if chosen[name]
        },
    }
    manifest["calibrated_from"] = bundle.id
    on_step("writing the bundle", 0.0)
    return Built(write_bundle(out, manifest, {**bundle.files, **files}), fidelity, report)


def _within(bounds: tuple[int, int, float], cost: int) -> int:
    fewest, most, budget = bounds
    return int(np.clip(budget / max(cost, 1), fewest, most))


def _prepare(
    name: str,
    model: onnx.ModelProto,
    outputs: tuple[str, ...],
    feeds: Sequence[Feed],
    on_step: Callable[[str, float], None],
) -> tuple[_Network, dict[str, Magnitudes]]:
    """The network's layers, a sample of its inputs for comparisons, and the magnitudes of its layers' inputs."""
    layers = find_layers(model)
    usable = [layer for layer in layers if not layer.why_not]
    network = _Network(name, model, outputs, usable, [layer for layer in layers if layer.why_not])
    network.sample = [feeds[i] for i in network.spread(len(feeds), _SENSITIVITY)]
    counted = network.spread(len(feeds), _RANGES)

    def some() -> Iterator[Feed]:
        for count, i in enumerate(counted):
            on_step(f"{name}: ranges", count / len(counted))
            yield feeds[i]

    return network, collect(model, tensors_of(usable), some())


def _choose_method(network: _Network, magnitudes: Mapping[str, Magnitudes], method: Method | None) -> None:
    """The method with the best SQNR of the fully quantised network; the simpler one on a tie."""
    if not network.layers:
        return
    exact = answers(network.model, network.sample, network.outputs)
    amax = {name: {tensor: float(seen.amax(name)) for tensor, seen in magnitudes.items()} for name in METHODS}
    for name in METHODS:
        model = quantise(network.model, network.layers, amax[name])
        network.by_method[name] = sqnr(exact, answers(model, network.sample, network.outputs))
    network.method = method if method is not None else max(METHODS, key=network.by_method.__getitem__)
    network.measured = amax[network.method]
    network.equal, network.amax = equalise(network.model, network.measured)


def _sensitivity(network: _Network, on_step: Callable[[str, float], None]) -> None:
    done = iter(range(len(network.layers)))
    network.sensitivity = leave_one_in(
        network.equal, network.layers, network.amax, network.sample, network.outputs,
        lambda layer: on_step(f"{network.name}: sensitivity", next(done) / len(network.layers)),
    )  # fmt: skip


def _models(exact: Mapping[str, bytes], networks: Mapping[str, _Network], chosen: Chosen) -> dict[str, bytes]:
    quantised = {name: n.quantised(chosen[name]).SerializeToString() for name, n in networks.items() if chosen[name]}
    return {**exact, **quantised}


def _give_back(
    networks: Mapping[str, _Network], chosen: Chosen, holds: Callable[[Chosen], bool], questions: int
) -> dict[str, Layers]:
    """The layers that stay INT8, over all networks at once; the most sensitive are given back first."""
    everything = [(name, layer) for name, layers in chosen.items() for layer in layers]
    order = sorted(everything, key=lambda at: networks[at[0]].sensitivity[at[1].name])

    def group(pairs: Sequence[tuple[str, QuantisableLayer]]) -> dict[str, Layers]:
        return {name: [layer for of, layer in pairs if of == name] for name in chosen}

    kept, _ = give_back(everything, order, lambda pairs: holds(group(pairs)), questions)
    return group(kept)


def _describe(network: _Network, chosen: Layers) -> dict[str, Any]:
    names = {layer.name for layer in chosen}
    by_rule = {layer.name: layer.why_not for layer in network.skipped}
    given_back = [layer.name for layer in network.layers if layer.name not in names]
    return {
        "method": network.method,
        "sqnr_by_method": network.by_method,
        # None: the outputs did not change (a softmax over one key is always 1)
        "sensitivity": {name: v if np.isfinite(v) else None for name, v in network.sensitivity.items()},
        "int8": [asdict(layer) for layer in chosen],
        "fp16": [*by_rule, *given_back],
        "by_rule": by_rule,
        "given_back": given_back,
    }
