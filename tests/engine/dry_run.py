"""Run by a test in a process of its own: torch-tensorrt is told of a GPU and says what it would do with each network.

Prints one JSON object: network -> the tracker's numbers, and `engine`, the bytes that our own `compile_engine` got.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import types
from pathlib import Path
from typing import Any
from unittest import mock

import torch

DESCRIBED = types.SimpleNamespace(name="described", major=8, minor=6, total_memory=8 << 30, multi_processor_count=28)


def describe_a_gpu() -> None:
    """What torch-tensorrt asks CUDA at import and before a build; no driver is there to answer."""
    answers: dict[str, Any] = {
        "get_device_capability": (8, 6),
        "get_device_properties": DESCRIBED,
        "current_device": 0,
        "get_device_name": "described",
        "mem_get_info": (8 << 30, 8 << 30),
    }
    for name, answer in answers.items():
        mock.patch.object(torch.cuda, name, lambda *args, answer=answer: answer).start()


def dry_run(name: str) -> dict[str, Any]:
    import torch_tensorrt
    from engine_networks import module_and_inputs

    module, inputs = module_and_inputs(name)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.txt"
        with torch.no_grad():
            program = torch.export.export(module, inputs)
            torch_tensorrt.dynamo.compile(program, inputs=list(inputs), dryrun=str(report), min_block_size=1)
        text = report.read_text()
    counts = re.search(r"consists of (\d+) Total Operators, of which (\d+) operators are supported", text)
    assert counts, text
    return {
        "operators": int(counts.group(1)),
        "supported": int(counts.group(2)),
        "engines": len(re.findall(r"TRT Engine #\d+", text)),
        "inside": sum(map(int, re.findall(r"Number of Operators in Engine: (\d+)", text))),
        "in_torch": "set to run in Torch" in text,
    }


def build_bytes() -> int:
    """`compile_engine` with the real builder; only the look at the finished engine, which needs a driver, is out."""
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter

    from jmt_edge.compiler.torch_tensorrt import compile_engine, open_torch_tensorrt
    from jmt_edge.models.from_bundle import PositionalFusion
    from jmt_edge.models.joint import build_model
    from jmt_edge.tasks import get_task

    assert open_torch_tensorrt().name == "torch-tensorrt"

    def load(data: Any) -> Any:
        return types.SimpleNamespace(serialize=lambda: bytes(data), get_aliased_input_tensor=lambda name: None)

    runtime = types.SimpleNamespace(deserialize_cuda_engine=load)
    task = get_task("pain", "demo")
    fusion = PositionalFusion(build_model(task).fusion).eval()
    with mock.patch.object(_TRTInterpreter.trt, "Runtime", return_value=runtime):
        return len(compile_engine(fusion, task, "fusion"))


if __name__ == "__main__":
    describe_a_gpu()
    found: dict[str, Any] = {name: dry_run(name) for name in sys.argv[1:]}
    found["engine"] = build_bytes()
    print(json.dumps(found))
