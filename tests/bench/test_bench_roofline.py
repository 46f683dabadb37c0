"""FLOPs against PyTorch's own counter, bytes against sums by hand, times against the two bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jmt_edge.bench import roofline
from jmt_edge.bench.roofline import Hardware, LayerCost, graph_costs, predict, prediction
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.errors import ConfigError

torch = pytest.importorskip("torch")


def counted(module: Any, *inputs: Any) -> int:
    """FLOPs by torch.utils.flop_counter, an implementation that knows nothing of ONNX."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize(("task", "name"), [("pain", "face"), ("pain", "eda"), ("affect", "face"), ("affect", "voice")])
def test_flops_of_every_backbone(task: str, name: str) -> None:
    """The shipped graph against the PyTorch module that it was exported from."""
    from jmt_edge.models import build_model
    from jmt_edge.tasks import get_task

    bundle, preset = load_bundle(demo_bundle(task)), get_task(task, "demo")
    graph = onnx.load_from_string(bundle.exported_graph(name))
    costs = graph_costs(name, graph, "fp32", {"N": 2, "B": 2, "S": 1})
    expected = counted(build_model(preset).eval().backbones[name], torch.zeros(2, *preset.modality(name).shape))
    assert sum(c.flops for c in costs) == pytest.approx(expected, rel=1e-3)


def test_flops_of_the_unfolded_fusion() -> None:
    from jmt_edge.compiler.export import unfolded_graph
    from jmt_edge.models.fusion import JMT

    fusion = JMT(("face", "voice"), 64, ("valence", "arousal")).eval()
    costs = graph_costs("fusion", unfolded_graph(fusion, 64, 16), "fp32", {"B": 2, "S": 16, "N": 2})
    inputs = {name: torch.zeros(2, 16, 64) for name in ("face", "voice")}, torch.ones(2, 16, 2)
    expected = counted(lambda *x: fusion(*x, last=True), *inputs)
    # eager PyTorch projects each of the three queries (of one step) twice, the exporter finds that they are the same
    twice = 3 * 2 * 2 * 64 * 64
    assert sum(c.flops for c in costs) == expected - twice


def test_flops_of_the_folded_fusion() -> None:
    """No product is lost to a shape that is not inferred, and only the encoders have S rows."""
    from jmt_edge.models.folding import fold
    from jmt_edge.models.fusion import JMT
    from jmt_edge.models.fusion_onnx import fusion_graph

    graph = fusion_graph(fold(JMT(("face", "voice"), 64, ("valence", "arousal")).eval()))
    costs = graph_costs("fusion", graph, "fp32", {"B": 2, "S": 16, "N": 2})
    assert len(costs) == sum(node.op_type == "MatMul" for node in graph.graph.node)
    d, s = 64, 16
    encoders = 3 * s * (4 * d * d + 2 * s * d) + s * 2 * d * d  # and the joint source
    cross = 3 * d * d + 2 * 9 * s * d + 6 * d * d  # queries, every source against every other and itself, outputs
    final = 6 * (4 * d * d + 2 * 6 * d) + d * d + 2 * 6 * d + 6 * 3  # the encoder over blocks, the kept block, shares
    heads = d * 32 + 32 * 2
    assert sum(c.flops for c in costs) == 2 * 2 * (encoders + cross + final + heads)


def test_one_layer_by_hand() -> None:
    """A 3x3 convolution from 4 to 8 channels over 10x10, and a product (2, 16) by (16, 5)."""
    from onnx import TensorProto, helper, numpy_helper

    def graph(node: Any, shape: list[int], out: list[int], weight: tuple[int, ...]) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", out))]
        made = helper.make_graph(
            [node], "g", [ends[0]], [ends[1]], [numpy_helper.from_array(np.ones(weight, "f"), "w")]
        )
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])

    conv = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    (row,) = graph_costs("n", graph(conv, [1, 4, 10, 10], [1, 8, 10, 10], (8, 4, 3, 3)), "fp16", {})
    assert row.flops == 2 * 100 * 8 * 4 * 9
    assert row.bytes == 2 * (400 + 288 + 800)
    (row,) = graph_costs(
        "n", graph(helper.make_node("MatMul", ["x", "w"], ["y"]), [2, 16], [2, 5], (16, 5)), "int8", {}
    )
    assert row.flops == 2 * 2 * 16 * 5 and row.bytes == 32 + 80 + 10
    assert row.intensity == row.flops / row.bytes


def test_time_is_the_larger_bound_plus_the_launch() -> None:
    device = Hardware("d", {"fp32": 1e9}, 1e6, 0.5, "", 0.5, 0.25)
    few, many = LayerCost("n", "a", "Conv", 1e9, 1e4, 0, "", 0), LayerCost("n", "b", "Conv", 1e7, 1e6, 0, "", 0)
    compute, memory = predict([few, many], device, {"n": "fp32"})
    assert (compute.bound, compute.seconds) == ("compute", pytest.approx(1e9 / 0.5e9 + 0.5))
    assert (memory.bound, memory.seconds) == ("memory", pytest.approx(1e6 / 0.25e6 + 0.5))


@pytest.mark.parametrize(
    ("name", "sparse_tops", "dla_tops", "fp32_tflops"),
    [("orin-nano", 67, 0, 2.1), ("orin-nx", 157, 80, 2.4), ("agx-orin", 275, 105, 5.3), ("thor", 1035, 0, 8.1)],
)
def test_the_derived_peaks_are_the_advertised_ones(
    name: str, sparse_tops: float, dla_tops: float, fp32_tflops: float
) -> None:
    """What NVIDIA advertises for the module is twice the dense INT8 rate plus the DLAs' (Thor: sparse FP8, half of its
    2070 in FP4)."""
    device = roofline.device(name)
    assert 2 * device.peak["int8"] / 1e12 + dla_tops == pytest.approx(sparse_tops, rel=0.01)
    assert device.peak["int8"] == 2 * device.peak["fp16"]
    assert device.peak["fp32"] / 1e12 == pytest.approx(fp32_tflops, rel=0.02)
    assert "NVIDIA" in device.source and 1e-6 < device.launch < 3e-6


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("task", ["pain", "affect"])
def test_a_larger_device_is_predicted_faster(task: str, precision: str) -> None:
    """By every network and in total, in the order of what the devices can do."""
    bundle = load_bundle(demo_bundle(task))
    table = dict.fromkeys(bundle.networks, precision)
    found = [prediction(bundle, device, table, 0.5) for device in roofline.DEVICES.values()]
    totals = [report["total_ms"] for report in found]
    assert totals == sorted(totals, reverse=True) and list(roofline.DEVICES)[-1] == "h200"
    for name in bundle.networks:
        times = [report["networks"][name]["ms"] for report in found]
        assert times == sorted(times, reverse=True), name


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="orin-nano"):
        roofline.device("xavier")


def test_a_prediction_is_labelled_and_adds_up(tmp_path: Path) -> None:
    bundle = load_bundle(demo_bundle("affect"))
    table = dict.fromkeys(bundle.networks, "fp16")
    report = prediction(bundle, roofline.device("orin-nano"), table, 0.5)
    assert report["label"] == "prediction by roofline, not a measurement"
    assert report["total_ms"] == pytest.approx(1e3 * sum(layer["seconds"] for layer in report["layers"]))
    assert report["share_of_hop"] == pytest.approx(report["total_ms"] / 500)
    faster = prediction(bundle, roofline.device("agx-orin"), table, 0.5)
    assert faster["total_ms"] < report["total_ms"]
    pytest.importorskip("matplotlib")
    assert roofline.plot(report).startswith(b"\x89PNG")


@pytest.mark.alone  # the bound and the networks are timed one after the other: nobody works during one only
def test_the_prediction_for_this_machine_stands_beside_its_measurement(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from jmt_edge.cli.bench import command

    arguments = ["--task", "pain", "--predict", "here", "--threads", "1", "--json", str(tmp_path / "p.json")]
    result = CliRunner().invoke(command, [*arguments, "--layers", "--plot", str(tmp_path / "p.png")])
    assert result.exit_code == 0, result.output
    assert "PREDICTION" in result.output and result.output.count("predicted / measured") == 4
    report = json.loads((tmp_path / "p.json").read_text())
    for row in (*report["networks"].values(), report):
        ms = row.get("ms", row.get("total_ms"))
        assert row["predicted_to_measured"] == pytest.approx(ms / row["measured_ms"])
        # a bound: no network beats it by more than the noise of measuring the bound itself
        assert 0 < row["predicted_to_measured"] < 3
    rows = [line for line in result.output.splitlines() if line.endswith(tuple("0123456789")) and "  " in line]
    assert sum(" Conv " in r or " MatMul " in r or " Gemm " in r for r in rows) == len(report["layers"])
