"""TensorRT-RTX builds real plans without a GPU: precision per layer, targets, refusals, progress."""

from __future__ import annotations

import numpy as np
import pytest
from engine_graphs import clips, residual_network
from onnx import helper

from jmt_edge.calibration.quantise import find_layers, quantise, tensors_of
from jmt_edge.calibration.ranges import collect
from jmt_edge.engine.plan import build_plan, parse_layer
from jmt_edge.engine.precision import static_shapes, to_fp16
from jmt_edge.engine.tensorrt_api import CAPABILITIES, OLDEST, Library, open_library
from jmt_edge.errors import BackendError

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def rtx() -> Library:
    return open_library("tensorrt-rtx")


def _graph(precision: str) -> bytes:
    model = static_shapes(residual_network(channels=32), {"N": 1})
    if precision == "int8":
        layers = [layer for layer in find_layers(model) if not layer.why_not]
        ranges = collect(model, tensors_of(layers), [{"clip": clip[None]} for clip in clips(4)])
        model = quantise(model, layers, {name: seen.amax("minmax") for name, seen in ranges.items()})
    if precision != "fp32":
        model = to_fp16(model).model
    return model.SerializeToString()


@pytest.mark.parametrize("target", ["sm_86", "sm_120"])
@pytest.mark.parametrize(
    ("precision", "expected"),
    [("fp32", {"fp32": 3}), ("fp16", {"fp16": 3}), ("int8", {"fp16": 1, "int8": 2})],
)
def test_every_convolution_computes_in_the_asked_precision(
    rtx: Library, precision: str, expected: dict[str, int], target: str
) -> None:
    plan = build_plan(rtx, _graph(precision), target=target)
    assert plan.summary()["convolutions"] == expected
    assert len(plan.data) > 1000


def test_progress_rises_to_the_end_and_a_false_answer_stops(rtx: Library) -> None:
    seen: list[float] = []
    build_plan(rtx, _graph("fp32"), target="sm_86", on_progress=lambda f: seen.append(f) or True)
    assert seen == sorted(seen)
    assert seen[0] < 0.5 < seen[-1] <= 1.0
    with pytest.raises(BackendError, match="did not build"):
        build_plan(rtx, _graph("fp32"), target="sm_86", on_progress=lambda f: False)


def test_refusals_are_one_sentence_with_the_reason(rtx: Library) -> None:
    with pytest.raises(BackendError, match="cannot parse the ONNX graph") as broken:
        build_plan(rtx, b"not an onnx file", target="sm_86")
    assert "\n" not in str(broken.value)
    unsupported = helper.make_model(
        helper.make_graph(
            [helper.make_node("NoSuchOperator", ["x"], ["y"], domain="nowhere")],
            "g",
            [helper.make_tensor_value_info("x", 1, [1, 4])],
            [helper.make_tensor_value_info("y", 1, [1, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("nowhere", 1)],
        ir_version=10,
    )
    with pytest.raises(BackendError, match="no support for the operator NoSuchOperator"):
        build_plan(rtx, unsupported.SerializeToString(), target="sm_86")
    with pytest.raises(BackendError, match="cannot compile for sm_87, only for sm_75"):
        build_plan(rtx, _graph("fp32"), target="sm_87")


def test_a_build_after_a_failed_one_works(rtx: Library) -> None:
    """The library keeps pointers to its callbacks: freed in the wrong order, the process dies here."""
    for _ in range(3):
        with pytest.raises(BackendError):
            build_plan(rtx, b"", target="sm_86")
        assert build_plan(rtx, _graph("fp32"), target="sm_86").data


def test_dynamic_batch(rtx: Library) -> None:
    assert build_plan(rtx, residual_network().SerializeToString(), target="sm_86", batch=(1, 4, 16)).data


@pytest.mark.parametrize(
    ("name", "version", "capability", "can"),
    [
        ("tensorrt", "10.3.0", "explicit_qdq", True),
        ("tensorrt", "11.4.0.106", "explicit_qdq", True),
        ("tensorrt", "11.4.0.106", "cross_device", False),
        ("tensorrt", "10.3.0", "timing_cache", True),
        ("tensorrt-rtx", "1.6.1.120", "explicit_qdq", False),
        ("tensorrt-rtx", "1.7.1.116", "explicit_qdq", True),
        ("tensorrt-rtx", "1.7.1.116", "timing_cache", False),
    ],
)
def test_capability_table(name: str, version: str, capability: str, can: bool) -> None:
    library = Library(name, None, version)  # type: ignore[arg-type]
    assert library.can(capability) is can
    if not can:
        with pytest.raises(BackendError, match=f"this is {name} {version}"):
            library.require(capability)


def test_every_capability_names_a_known_library() -> None:
    assert all(set(gates) <= set(OLDEST) and gates for gates in CAPABILITIES.values())


def test_layer_lines_are_read() -> None:
    line = (
        "Name: node_Conv_275_myl0_3, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,64], Datatype: Int8, "
        "Format: x }], Constants: [ { Name: w, Datatype: Int8 }], Outputs: [ { Name: b, Datatype: Float, Format: y }], "
        "TacticName: t, StreamId: 0, Metadata: "
    )
    layer = parse_layer(line)
    assert (layer.name, layer.kind, layer.precision, layer.convolution) == (
        "node_Conv_275_myl0_3",
        "correlation",
        "int8",
        True,
    )
    assert (layer.inputs, layer.outputs) == (("Int8",), ("Float",))


def test_the_quantised_graph_itself_is_close() -> None:
    """The plan cannot run here; the graph it was parsed from can."""
    import onnxruntime

    exact = residual_network(channels=32)
    run = [
        onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"]).run(None, {"clip": clips(1)})[0]
        for m in (exact.SerializeToString(), _graph("int8"))
    ]
    assert np.abs(run[0] - run[1]).max() < 0.05 * np.abs(run[0]).max()
