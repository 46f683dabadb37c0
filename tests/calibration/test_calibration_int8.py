"""INT8 calibration: ranges against onnxruntime's own calibrator, Q/DQ placement, sensitivity, selection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from engine_graphs import clips, residual_network
from engine_networks import graph_and_feeds
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from jmt_edge.calibration.quantise import find_layers, half_scale, quantise, tensors_of
from jmt_edge.calibration.ranges import METHODS, Magnitudes, collect
from jmt_edge.calibration.sensitivity import answers, give_back, leave_one_in, sqnr
from jmt_edge.calibration.sources import spread
from jmt_edge.clips.window_set import WindowSet, random_windows
from jmt_edge.errors import DataError
from jmt_edge.tasks import get_task


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50), min_size=1, max_size=5))
def test_minmax_is_exact_and_every_method_stays_within_it(chunks: list[list[float]]) -> None:
    seen = Magnitudes()
    for chunk in chunks:
        seen.add(np.array(chunk, np.float32))
    largest = max(abs(np.float32(v)) for chunk in chunks for v in chunk)
    assert seen.amax("minmax") == pytest.approx(float(largest), rel=1e-6, abs=1e-12)
    for method in METHODS:
        assert 0 <= seen.amax(method) <= seen.largest


def test_percentile_agrees_with_numpy() -> None:
    values = np.random.default_rng(0).gamma(2.0, 1.0, 60_000).astype(np.float32)
    seen = Magnitudes()
    for part in np.array_split(values, 7):
        seen.add(part)
    assert seen.amax("percentile", 99.0) == pytest.approx(np.percentile(values, 99.0), rel=0.01)


def test_mse_is_the_best_of_all_thresholds() -> None:
    values = np.abs(np.random.default_rng(1).standard_t(3, 60_000)).astype(np.float32)
    seen = Magnitudes()
    seen.add(values)

    def error(amax: float) -> float:
        step = amax / 127
        return float(np.mean((values - np.clip(np.rint(values / step), 0, 127) * step) ** 2))

    best = min(error(a) for a in np.linspace(seen.largest / 50, seen.largest, 400))
    assert error(seen.amax("mse")) <= 1.1 * best
    assert error(seen.amax("mse")) < error(seen.amax("minmax"))


def test_entropy_ignores_exact_zeros() -> None:
    values = np.abs(np.random.default_rng(2).standard_normal(50_000)).astype(np.float32)
    plain, padded = Magnitudes(), Magnitudes()
    plain.add(values)
    padded.add(values)
    padded.add(np.zeros(50_000, np.float32))
    assert padded.amax("entropy") == pytest.approx(plain.amax("entropy"))


def test_minmax_agrees_with_onnxruntime_calibrator(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    model, data = residual_network(), clips(5)
    onnx.save(model, tmp_path / "m.onnx")
    layers = [layer for layer in find_layers(model) if not layer.why_not]
    ours = collect(model, tensors_of(layers), [{"clip": c[None]} for c in data])

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = [{"clip": c[None]} for c in data]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.rest.pop() if self.rest else None

    theirs = create_calibrator(
        tmp_path / "m.onnx", augmented_model_path=str(tmp_path / "a.onnx"), calibrate_method=CalibrationMethod.MinMax
    )
    theirs.collect_data(Reader())
    table = theirs.compute_data()
    for name, seen in ours.items():
        low, high = (float(np.asarray(v).ravel()[0]) for v in table[name].range_value)
        assert seen.amax("minmax") == pytest.approx(max(abs(low), abs(high)), rel=1e-5)


def _feeds(count: int) -> list[dict[str, np.ndarray]]:
    return [{"clip": clip[None]} for clip in clips(count)]


def _quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    layers = [layer for layer in find_layers(model) if not layer.why_not]
    seen = collect(model, tensors_of(layers), _feeds(4))
    return quantise(model, layers, {name: s.amax("minmax") for name, s in seen.items()})


def test_placement_follows_the_rules() -> None:
    model = residual_network()
    layers = {layer.name: layer for layer in find_layers(model)}
    assert layers["stem"].why_not.startswith("stem")
    assert layers["head"].why_not.startswith("matrix-vector")
    assert layers["block.conv1"].why_not == layers["block.conv2"].why_not == ""
    assert (layers["block.conv1"].residual, layers["block.conv2"].residual) == ("", "stem.relu")
    graph = _quantised(model).graph
    by_name = {node.name: node for node in graph.node}
    assert by_name["stem"].input[0] == "clip"
    assert by_name["norm"].input[0] == "flat"
    # one branch of the sum is quantised, the convolution's own output is not
    assert list(by_name["block.add"].input) == ["block.conv2.out", "stem.relu_dequantised"]
    # conv1 and the residual branch share one Q/DQ pair
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 2
    for init in graph.initializer:
        if init.name.endswith("weight_int8"):
            assert init.data_type == TensorProto.INT8
            assert np.abs(numpy_helper.to_array(init).astype(int)).max() == 127
            assert len(next(i for i in graph.initializer if i.name == f"{init.name}_scale").dims) == 1


def test_a_small_convolution_follows_the_neighbour_that_reads_the_same() -> None:
    """The 1x1 of a downsampling block; what is small and reads something else stays in FP16."""
    model, _ = graph_and_feeds("r2plus1d_18")
    layers = [layer for layer in find_layers(model) if layer.op == "Conv"]
    weights = {init.name: int(np.prod(init.dims)) for init in model.graph.initializer}
    all_weights, work = sum(weights[v.weight] for v in layers), sum(v.multiply_adds for v in layers)
    small = [v for v in layers if max(v.multiply_adds / work, weights[v.weight] / all_weights) < 0.01]
    read = {v.activation for v in layers if v not in small and not v.why_not}
    joined = [v for v in small if v.activation in read]
    assert len(joined) >= 2 and not any(v.why_not for v in joined)
    assert all(v.why_not.startswith(("small", "stem")) for v in small if v not in joined)
    # alone, the same layer is left alone
    stem = next(node for node in model.graph.node if node.op_type == "Conv")
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[0] == joined[0].activation and node.input[1] != joined[0].weight:
            node.input[0] = stem.output[0]
    again = {v.weight: v.why_not for v in find_layers(model)}
    assert again[joined[0].weight].startswith("small")


def test_quantised_weights_are_within_half_a_step() -> None:
    model = residual_network()
    exact = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    made = {i.name: numpy_helper.to_array(i) for i in _quantised(model).graph.initializer}
    for name in ("block.conv1.weight", "block.conv2.weight"):
        scale = made[f"{name}_int8_scale"].reshape(-1, 1, 1, 1, 1)
        assert np.all(np.abs(made[f"{name}_int8"] * scale - exact[name]) <= scale / 2 + 1e-7)


def test_scales_are_fp16_numbers_and_no_smaller_than_asked() -> None:
    """Down to FP16's subnormal numbers, where a large layer's weights lie."""
    wanted = np.array([0, 1e-9, 5.3e-5, 6.2e-5, 0.01, 1 / 3, 700], np.float32)
    got = half_scale(wanted)
    assert np.array_equal(got, got.astype(np.float16).astype(np.float32)) and got[0] > 0
    assert np.all(got >= wanted) and np.all(got[2:] <= wanted[2:] * (1 + 2.0**-9))


def test_the_quantised_graph_runs_and_is_close() -> None:
    model = residual_network()
    exact, other = answers(model, _feeds(3)), answers(_quantised(model), _feeds(3))
    assert sqnr(exact, other) > 25


def test_sensitivity_finds_the_layer_that_suffers() -> None:
    """A channel a thousand times larger than the rest ruins a per-tensor activation scale."""
    model = residual_network(channels=16)
    bias = next(i for i in model.graph.initializer if i.name == "block.conv1.bias")
    value = numpy_helper.to_array(bias).copy()
    value[0] = 2000.0
    bias.CopyFrom(numpy_helper.from_array(value, bias.name))
    weight = next(i for i in model.graph.initializer if i.name == "block.conv2.weight")
    w = numpy_helper.to_array(weight).copy()
    w[:, 0] = 0  # the loud channel itself carries nothing
    weight.CopyFrom(numpy_helper.from_array(w, weight.name))
    layers = [layer for layer in find_layers(model) if not layer.why_not]
    seen = collect(model, tensors_of(layers), _feeds(4))
    amax = {name: s.amax("minmax") for name, s in seen.items()}
    found = leave_one_in(model, layers, amax, _feeds(3))
    assert found["block.conv2"] < found["block.conv1"] - 10
    order = sorted(layers, key=lambda layer: found[layer.name])
    exact = answers(model, _feeds(3))
    kept, returned = give_back(layers, order, lambda s: sqnr(exact, answers(quantise(model, s, amax), _feeds(3))) > 25)
    assert [layer.name for layer in returned] == ["block.conv2"]
    assert [layer.name for layer in kept] == ["block.conv1"]


def test_fewer_questions_give_back_more_and_still_hold() -> None:
    layers = [*range(64)]
    for needed in (1, 20, 63):
        asked: list[int] = []
        holds = lambda kept: asked.append(0) or 64 - len(kept) >= needed  # noqa: B023, E731
        _, returned = give_back(layers, layers, holds, questions=3)
        assert needed <= len(returned) <= needed + 64 // 2**3 and len(asked) == 1 + 3


@given(st.integers(0, 40), st.integers(0, 40))
def test_giving_back_stops_at_the_first_run_that_holds(count: int, needed: int) -> None:
    layers, order = [*range(count)], [*reversed(range(count))]
    asked: list[int] = []

    def holds(kept: list[int]) -> bool:
        asked.append(len(kept))
        return count - len(kept) >= needed

    kept, returned = give_back(layers, order, holds)
    assert returned == order[: min(needed, count)]
    assert kept == [layer for layer in layers if layer not in returned]
    assert len(asked) <= 2 + count.bit_length()  # each question runs the networks over all windows


def test_few_layers_go_back_where_the_scores_waver() -> None:
    """A decision or two that flip by chance: 8 layers given back hold, so do 50, and half of them do not."""
    layers = [*range(80)]
    holds = lambda kept: 8 <= 80 - len(kept) <= 12 or 80 - len(kept) >= 50  # noqa: E731
    _, returned = give_back(layers, layers, holds)
    assert len(returned) == 8


def test_an_all_zero_activation_is_represented_exactly() -> None:
    model = residual_network()
    for init in model.graph.initializer:
        if init.name in ("stem.weight", "stem.bias"):
            init.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(init)), init.name))
    out = answers(_quantised(model), _feeds(1))
    assert np.isfinite(out).all()


def test_weight_heavy_linear_layers_are_quantised() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((512, 4096), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["clip", "w", "b"], ["features"], name="fc", transB=1)],
        "g",
        [helper.make_tensor_value_info("clip", 1, [1, 4096])],
        [helper.make_tensor_value_info("features", 1, [1, 512])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.zeros(512, np.float32), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (layer,) = find_layers(model)
    assert layer.why_not == ""
    x = rng.standard_normal((1, 4096), dtype=np.float32)
    quantised = quantise(model, [layer], {"clip": float(np.abs(x).max())})
    run = onnxruntime.InferenceSession(quantised.SerializeToString(), providers=["CPUExecutionProvider"])
    assert sqnr(x @ w.T, np.asarray(run.run(None, {"clip": x})[0])) > 30
    assert len(quantised.SerializeToString()) < 0.3 * len(model.SerializeToString())


@pytest.mark.parametrize("name", ["jmt_2", "jmt_3"])
def test_a_fusion_keeps_its_heads_and_its_small_layers(name: str) -> None:
    """Every projection of an encoder or of cross-attention is INT8; what turns the last mix into answers is not."""
    model, feeds = graph_and_feeds(name)
    layers = find_layers(model)
    sources = len(feeds)  # the modalities and the joint one, for `present`
    weight = {init.name: int(np.prod(init.dims)) for init in model.graph.initializer}
    total = sum(weight[layer.weight] for layer in layers)
    stays = {layer.weight: layer.why_not for layer in layers if layer.why_not}
    heads = {w for w in stays if w.startswith("head.")}
    assert heads == {"head.w1", "head.w2"} and all(stays[w] == "head" or weight[w] < 0.01 * total for w in heads)
    assert all(weight[w] < 0.01 * total for w in stays if w not in heads)
    quantised = [layer for layer in layers if not layer.why_not]
    # four in each encoder, two for each query source, the joint layer, the block encoder's four and the last query
    assert len(quantised) == 4 * sources + 2 * sources + 1 + 4 + 1
    assert sum(weight[layer.weight] for layer in quantised) > 0.95 * total
    ranges = collect(model, tensors_of(quantised), [feeds])
    small = quantise(model, quantised, {tensor: seen.amax("minmax") for tensor, seen in ranges.items()})
    outputs = [value.name for value in model.graph.output if value.name != "attention"]
    assert sqnr(answers(model, [feeds], outputs), answers(small, [feeds], outputs)) > 20
    assert len(small.SerializeToString()) < 0.3 * len(model.SerializeToString())


def _labelled(count: int) -> WindowSet:
    windows = random_windows(get_task("pain", "demo"), count)
    rng = np.random.default_rng(0)
    subjects = rng.choice(["a", "b", "c"], count, p=[0.8, 0.15, 0.05]).astype("U1")
    return WindowSet(
        windows.clips, windows.present, {"pain": rng.integers(0, 2, count).astype(float)}, subjects, "noise"
    )


def test_chosen_windows_cover_subjects_and_classes() -> None:
    windows = _labelled(60)
    chosen = windows.take(spread(windows, 12))
    assert set(chosen.subjects) == {"a", "b", "c"}
    for subject in ("a", "b"):
        assert set(chosen.targets["pain"][chosen.subjects == subject]) == {0.0, 1.0}
    assert sorted(spread(windows, 60)) == list(range(60))
    assert np.array_equal(spread(windows, 12, seed=3), spread(windows, 12, seed=3))


def test_windows_round_trip_and_refuse_what_does_not_fit(tmp_path: Path) -> None:
    windows = _labelled(3)
    task = get_task("pain", "demo")
    windows.save(tmp_path / "w.npz", task)
    back = WindowSet.load(tmp_path / "w.npz")
    back.check(task)
    # as many samples of a longer clip, or of another scale, have the same shape and are another signal
    eda = task.modality("eda")
    for other, says in ((replace(eda, span=10.0), r"span 5.5, but pain takes 10.0"),
                        (replace(eda, mean=(5.0,), std=(2.0,)), r"mean \[\], but pain takes \[5.0\]")):  # fmt: skip
        with pytest.raises(DataError, match=says):
            back.check(replace(task, modalities=(task.modality("face"), other)))
    assert back.origin == "noise" and np.array_equal(back.clips["face"], windows.clips["face"])
    with pytest.raises(DataError, match="affect takes"):
        back.check(get_task("affect", "demo"))
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="has no saved windows"):
        WindowSet.load(tmp_path / "bad.npz")
