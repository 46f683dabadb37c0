"""Whether an ONNX file is self-contained: a graph may have weights in other files, which no hash of the bundle covers.

The run-time has no `onnx`, so the file's wire format is parsed here; only the fields that lead to tensors are followed.
Field numbers are those of `onnx.proto` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

# message -> field that holds messages -> which
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def has_external_data(data: bytes) -> bool:
    """Whether any tensor of the model has its values in another file.

    Raises ValueError where `data` is not an ONNX model: another format, truncated, or without a graph.
    """
    todo = [("model", 0, len(data))]
    graphs = 0
    while todo:
        kind, at, end = todo.pop()
        graphs += kind == "graph"
        children = _CHILDREN[kind]
        while at < end:
            tag, at = _varint(data, at, end)
            field, wire = tag >> 3, tag & 7
            if not 0 < field < 1 << 29:
                raise ValueError("a field has no number")
            value = 0
            if wire == _VARINT:
                value, at = _varint(data, at, end)
            elif wire == _BYTES:
                size, at = _varint(data, at, end)
                if field in children:
                    todo.append((children[field], at, at + size))
                at += size
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire}")
            if at > end:
                raise ValueError("it is truncated")
            if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and (value or wire))):
                return True
    if not graphs:
        raise ValueError("it holds no graph")
    return False


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, where the next field begins)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it is truncated")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
