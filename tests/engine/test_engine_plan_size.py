"""What INT8 saves of a plan at full size, and what makes it: weights, and the source of each kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from engine_networks import graph_and_feeds
from onnx import TensorProto, helper, numpy_helper

from jmt_edge.calibration.quantise import find_layers, quantise, tensors_of
from jmt_edge.calibration.scales import equalise
from jmt_edge.compiler.build import load_graphs
from jmt_edge.compiler.export import random_bundle
from jmt_edge.compiler.fp16 import pad_channels, static_shapes, to_fp16
from jmt_edge.compiler.plan import build_plan
from jmt_edge.compiler.plan_cache import PlanCache
from jmt_edge.compiler.plan_maker import Network, PlanMaker
from jmt_edge.engine.tensorrt_api import Library, open_library
from jmt_edge.tasks import get_task

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def rtx() -> Library:
    return open_library("tensorrt-rtx")


def _quantised(model: onnx.ModelProto, equal: bool = True) -> onnx.ModelProto:
    """All layers in INT8, with ranges that differ from layer to layer as measured ones do."""
    layers = [layer for layer in find_layers(model) if not layer.why_not]
    rng = np.random.default_rng(0)
    ranges = {tensor: float(rng.uniform(0.1, 10)) for tensor in tensors_of(layers)}
    if equal:
        model, ranges = equalise(model, ranges)
    return to_fp16(quantise(model, layers, ranges)).model


@pytest.mark.parametrize("task", ["pain", pytest.param("affect", marks=pytest.mark.nightly)])
def test_int8_plans_take_at_most_30_percent_of_float32(rtx: Library, tmp_path: Path, task: str) -> None:
    """Full size, random weights, ranges that are not measured: neither matters for the size."""
    bundle = random_bundle(get_task(task), tmp_path / f"{task}.jmt")
    maker = PlanMaker(bundle, rtx, "sm_86", None, PlanCache(tmp_path / "cache"), lambda what, fraction: None)
    sizes = {"fp32": 0, "int8": 0}
    for name, graph in load_graphs(bundle).items():
        for precision, model in (("fp32", graph), ("int8", _quantised(graph))):
            sizes[precision] += len(maker.make(Network(name, model.SerializeToString(), precision)).data)
    assert sizes["int8"] <= 0.30 * sizes["fp32"], sizes


def test_equal_scales_leave_fewer_kernels(rtx: Library) -> None:
    """A kernel's source starts in the same way; the plan holds it once for each kernel."""
    model = static_shapes(graph_and_feeds("r2plus1d_18")[0], {"N": 1})
    plans = [build_plan(rtx, _quantised(model, equal).SerializeToString(), target="sm_86") for equal in (False, True)]
    sources = [plan.data.count(b"#undef __HAS_FP8") for plan in plans]
    assert 0 < sources[1] <= sources[0] - 8
    assert len(plans[0].data) - len(plans[1].data) > 8 * 100_000
    assert plans[0].summary()["convolutions"] == plans[1].summary()["convolutions"]


def _stem(channels: int, group: int = 1) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, channels // group, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["clip", "w"], ["features"], name="stem", group=group)],
        "stem",
        [helper.make_tensor_value_info("clip", TensorProto.FLOAT, [1, channels, 64, 64])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 8, 62, 62])],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _run(model: onnx.ModelProto, x: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"clip": x})[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_channel_of_zeros_changes_nothing_but_the_plan(rtx: Library, channels: int) -> None:
    half = to_fp16(_stem(channels)).model
    padded = pad_channels(half)
    x = np.random.default_rng(1).standard_normal((1, channels, 64, 64)).astype(np.float32)
    np.testing.assert_array_equal(_run(padded, x), _run(half, x))
    plans = [build_plan(rtx, model.SerializeToString(), target="sm_86") for model in (half, padded)]
    assert plans[0].summary()["convolutions"] == plans[1].summary()["convolutions"] == {"fp16": 1}
    assert len(plans[0].data) - len(plans[1].data) > 64 * 64  # the plane of zeros


@pytest.mark.parametrize("model", [_stem(3), to_fp16(_stem(4)).model, to_fp16(_stem(8, group=8)).model])
def test_other_convolutions_are_not_padded(model: onnx.ModelProto) -> None:
    """Float32, an even number of channels, one channel for each group."""
    assert [node.op_type for node in pad_channels(model).graph.node].count("Pad") == 0
