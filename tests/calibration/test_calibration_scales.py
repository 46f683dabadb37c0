"""Equal scales: the same network, the same rounding, fewer kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from engine_networks import NAMES, graph_and_feeds
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from jmt_edge.calibration.quantise import find_layers, quantise, tensors_of
from jmt_edge.calibration.ranges import collect
from jmt_edge.calibration.scales import FARTHEST, RANGE, equalise
from jmt_edge.calibration.sensitivity import Feed, answers, sqnr


def _ranges(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, float]:
    layers = [layer for layer in find_layers(model) if not layer.why_not]
    return {name: seen.amax("minmax") for name, seen in collect(model, tensors_of(layers), feeds).items()}


def _graph_and_feeds(name: str) -> tuple[onnx.ModelProto, list[Feed]]:
    """Few clips of a backbone, many steps of a fusion: a handful of outputs alone would be chance."""
    model, one = graph_and_feeds(name)
    rng = np.random.default_rng(0)
    count = 64 if "present" in one else 2
    return model, [
        {key: x if key == "present" else rng.standard_normal(x.shape, dtype=np.float32) for key, x in one.items()}
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.nightly] * (n in ("i3d", "r3d_18"))) for n in NAMES]
)
def test_every_network_stays_the_same_and_its_free_ranges_become_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, feeds = _graph_and_feeds(name)
    before = _ranges(model, feeds)
    equal, ranges = equalise(model, before)
    outputs = [value.name for value in model.graph.output]
    exact, same = answers(model, feeds, outputs), answers(equal, feeds, outputs)
    np.testing.assert_allclose(same, exact, atol=2e-5 * np.abs(exact).max())
    freed = [tensor for tensor in ranges if ranges[tensor] == RANGE]
    if name.startswith(("r2plus1d", "r3d", "resnet18", "jmt")):  # every block has one inside it, every encoder too
        blocks = sum(node.op_type == "Relu" for node in model.graph.node)
        assert blocks // 2 - 1 <= len(freed) < len(ranges)
    # what the table says is what the new network does
    after = _ranges(equal, feeds)
    for tensor, magnitude in after.items():
        if ranges[tensor] in (RANGE, before[tensor]):
            assert magnitude == pytest.approx(ranges[tensor], rel=1e-4)
        else:  # a part of a tensor, with the range of the widest part
            assert magnitude < ranges[tensor]
    layers = [layer for layer in find_layers(model) if not layer.why_not]
    if layers:
        # FP16's rounding of scales, a matter of chance for each number, left out
        monkeypatch.setattr("jmt_edge.calibration.quantise.half_scale", lambda scale: np.asarray(scale, np.float32))
        plain, equalised = quantise(model, layers, before), quantise(equal, layers, ranges)
        answered = [n for n in outputs if n != "attention"]
        wanted = answers(model, feeds, answered)
        loss = [sqnr(wanted, answers(q, feeds, answered)) for q in (plain, equalised)]
        assert loss[1] > loss[0] - 1.0  # dB; what lies between two whole numbers goes either way, layer after layer


def _chain(first: float, inner: float, *, shared: bool = False, tapped: bool = False) -> onnx.ModelProto:
    """clip -> Conv -> Relu -> MaxPool -> Conv -> features, magnitudes as wanted; `tapped` has a second output."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 4, 3, 3)).astype(np.float32)
    init = {"w1": w * np.float32(first), "b1": w[:, 0, 0, 0] * np.float32(first), "w2": w * np.float32(inner)}
    nodes = [
        helper.make_node("Conv", ["clip", "w1", "b1"], ["c"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w1" if shared else "w2"], ["features"], name="conv2"),
    ]
    outputs = {"features": [1, 4, 2, 2]} | ({"r": [1, 4, 8, 8]} if tapped else {})
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("clip", 1, [1, 4, 8, 8])],
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in init.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


_CLIP = {"clip": np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)}


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-3, 1e3), st.floats(1e-2, 1e2))
def test_int8_weights_are_the_same_whole_numbers(first: float, inner: float) -> None:
    """Or, where a scale would leave what FP16 holds well, nothing is changed."""
    model = _chain(first, inner)
    layers = find_layers(model)
    before = {name: seen.amax("minmax") for name, seen in collect(model, tensors_of(layers), [_CLIP]).items()}
    equal, ranges = equalise(model, before)
    if not RANGE / FARTHEST <= before["p"] <= RANGE * FARTHEST:
        assert ranges == before and equal.SerializeToString() == model.SerializeToString()
        return
    assert ranges == {"clip": before["clip"], "p": RANGE}
    pair = [quantise(model, layers, before), quantise(equal, layers, ranges)]
    for name in ("w1_int8", "w2_int8"):
        a, b = (next(numpy_helper.to_array(i).astype(int) for i in q.graph.initializer if i.name == name) for q in pair)
        assert np.abs(a - b).max() <= 1 and a.std() > 20  # a scale is rounded to a number that FP16 holds
    exact = answers(model, [_CLIP])
    assert sqnr(exact, answers(pair[1], [_CLIP])) > sqnr(exact, answers(pair[0], [_CLIP])) - 1.0


@pytest.mark.parametrize("kind", ["shared", "tapped"])
def test_a_scale_that_is_not_free_stays(kind: str) -> None:
    """Weights that serve twice, and a tensor that somebody else reads."""
    model = _chain(1.0, 1.0, shared=kind == "shared", tapped=kind == "tapped")
    equal, ranges = equalise(model, {"clip": 3.0, "p": 9.0})
    assert ranges == {"clip": 3.0, "p": 9.0}
    assert equal.SerializeToString() == model.SerializeToString()


def test_a_dead_tensor_is_left_alone() -> None:
    model = _chain(0.0, 1.0)
    equal, ranges = equalise(model, {"clip": 3.0, "p": 0.0})
    assert ranges["p"] == 0.0 and equal.SerializeToString() == model.SerializeToString()


def test_parts_of_one_tensor_share_the_widest_range() -> None:
    model, feeds = _graph_and_feeds("jmt_2")
    before = _ranges(model, feeds)
    _, ranges = equalise(model, before)
    maker = {name: node for node in model.graph.node for name in node.output}
    parts = [t for t in ranges if t in maker and maker[t].op_type == "Gather"]
    groups: dict[str, list[str]] = {}
    for part in parts:
        groups.setdefault(maker[part].input[0], []).append(part)
    (group,) = (found for found in groups.values() if len(found) > 1)  # what cross-attention mixed, by modality
    assert len(group) == 3
    assert {ranges[part] for part in group} == {max(before[part] for part in group)}
