"""TensorRT-RTX builds real plans without a GPU: precision per layer, targets, refusals, progress."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_graphs import clips, residual_network
from onnx import helper

from jmt_edge.calibration.quantise import find_layers, quantise, tensors_of
from jmt_edge.calibration.ranges import collect
from jmt_edge.calibration.report import kept_sentence
from jmt_edge.compiler.fp16 import static_shapes, to_fp16
from jmt_edge.compiler.plan import Plan, build_plan, parse_layer
from jmt_edge.compiler.report import layer_sentence
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


def _layers(*lines: tuple[str, str, str]) -> dict[str, Any]:
    """Name, kind and input type of each line -> the summary of a plan with these layers."""
    text = "Name: {}, LayerType: {}, Inputs: [ {{ Name: a, Datatype: {} }}], Outputs: [ {{ Name: b }}], StreamId: 0"
    plan = Plan(b"x" * 3_400_000, tuple(parse_layer(text.format(*line)) for line in lines), b"")
    return {"precision": "int8", "bytes": len(plan.data), "layers": plan.summary()}


def test_a_network_is_summed_up_in_a_line() -> None:
    convolutions = [("c", "correlation", "Int8")] * 47 + [("c", "correlation", "Half")] * 2 + [("p", "kgen", "Half")]
    assert layer_sentence("face", _layers(*convolutions), "FP16 by rule: 1 stem, 1 small") == (
        "face: 47 of 49 convolutions int8, 2 fp16; 50 layers, 3.4 MB (FP16 by rule: 1 stem, 1 small)"
    )
    products = [("n_matmul_6", "gemm", "Int8"), ("__myl_FcAdd", "runtime_fusion", "Half"), ("w", "wait", "")]
    assert layer_sentence("fusion", _layers(*products), "") == (
        "fusion: 1 of 2 matrix products int8, 1 fp16; 2 layers, 3.4 MB; attention not fused by TensorRT"
    )
    fused = [*products, ("_gemm_mha_v2_myl0_3", "kgen", "Half")]
    assert layer_sentence("fusion", _layers(*fused), "").endswith("attention fused in 1 layers by TensorRT")


def test_what_calibration_left_alone_is_counted_by_rule() -> None:
    rules = {"a": "stem: few input channels do better in FP16", "b": "small: 0.13 % of the multiply-adds"}
    rules |= {"c": "small: 0.68 % of the multiply-adds", "d": "head"}
    assert (
        kept_sentence({"by_rule": rules, "given_back": ["e"]}) == "FP16 by rule: 1 stem, 2 small, 1 head; 1 given back"
    )
    assert kept_sentence({"by_rule": {}, "given_back": []}) == ""


def test_the_quantised_graph_itself_is_close() -> None:
    """The plan cannot run here; the graph it was parsed from can."""
    import onnxruntime

    exact = residual_network(channels=32)
    run = [
        onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"]).run(None, {"clip": clips(1)})[0]
        for m in (exact.SerializeToString(), _graph("int8"))
    ]
    assert np.abs(run[0] - run[1]).max() < 0.05 * np.abs(run[0]).max()
