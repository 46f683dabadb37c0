"""The steps of `scripts/gpu-day.sh`: each measures, prints a row and appends it to `$OUT/rows.jsonl` at once, so that
a step that is killed keeps what it had. `collect DIR` makes `benchmarks/results/*.json` and the docs' tables of them.

A row is one JSON object with `kind`: facts, arithmetic, phase, contender, live, stress.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fusion_gpu
import torch
from common import RESULTS, ROOT, stamp, write
from fusion_gpu import Gpu, Row

from jmt_edge.kernels import native
from jmt_edge.kernels.ops import FusedFusion

DEVICE, DIM = "cuda", 512  # of a rehearsal: others
ARITHMETIC = [(2, 16, "float16"), (3, 64, "float16"), (4, 16, "float16"), (2, 16, "bfloat16"), (2, 16, "int8"),
              (2, 7, "float32")]  # fmt: skip


def out() -> Path:
    folder = Path(os.environ.get("OUT", "gpu-day"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def emit(kind: str, **values: Any) -> None:
    line = json.dumps({"kind": kind, "at": round(time.time(), 1), **values})
    with (out() / "rows.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def facts(gpu: Gpu) -> dict[str, Any]:
    found = gpu.facts()
    emit("facts", device=found, **stamp("scripts/gpu-day.sh"))
    return found


def arithmetic(mode: str) -> int:
    """Errors of one launch mode against float64, at a few sizes and in each precision; 1 where any is wrong."""
    bad = 0
    for m, steps, dtype in ARITHMETIC:
        began = time.monotonic()
        case = fusion_gpu.make_case(m, steps, DIM, dtype, DEVICE, kernels=False)  # type: ignore[arg-type]
        kernel = FusedFusion(case.weights, 1, steps, dtype, DEVICE, mode, last=True)  # type: ignore[arg-type]
        case.kernels[mode] = kernel
        errors, wrong = fusion_gpu.check_kernels(case)
        bad += bool(wrong)
        emit("arithmetic", mode=mode, M=m, S=steps, dtype=dtype, error=errors.get(mode), wrong=wrong.get(mode, ""),
             seconds=round(time.monotonic() - began, 1))  # fmt: skip
    return int(bad > 0)


def phases() -> int:
    """Every way of running ours at M = 2, S = 16, without torch.compile; then time per phase and empty barriers."""
    gpu = Gpu()
    bandwidth = facts(gpu)["bandwidth"]
    rows = fusion_gpu.measure(
        gpu, bandwidth, [(2, 16)], "float16", DEVICE, DIM, time.monotonic(), False, contender("float16")
    )
    case = fusion_gpu.make_case(2, 16, DIM, "float16", DEVICE)
    fusion_gpu.phase_rows(gpu, case, lambda row: emit("phase", dtype="float16", **asdict(row)))
    return int(any(row.not_measured.startswith(fusion_gpu.WRONG) for row in rows))


def contender(dtype: str) -> Any:
    def add(row: Row) -> None:
        if not row.not_measured.startswith("left out"):
            emit("contender", dtype=dtype, **asdict(row))

    return add


def contenders() -> int:
    """M = 2, S = 16 with torch.compile, in fp16."""
    gpu = Gpu()
    deadline = time.monotonic() + float(os.environ.get("STEP4_SECONDS", "560")) - 20
    bandwidth = facts(gpu)["bandwidth"]
    fusion_gpu.measure(gpu, bandwidth, [(2, 16)], "float16", DEVICE, DIM, deadline, True, contender("float16"))
    return 0


def sizes() -> int:
    """All sizes in fp16, then INT8 at the papers' size, without torch.compile."""
    gpu, bad = Gpu(), 0
    bandwidth = facts(gpu)["bandwidth"]
    every = [(3, 16), (4, 16), (2, 64), (2, 8), (3, 64), (3, 8), (4, 64), (4, 8)]
    for dtype, these in (("int8", [(2, 16)]), ("float16", every), ("bfloat16", [(2, 16)]), ("float32", [(2, 16)])):
        rows = fusion_gpu.measure(
            gpu, bandwidth, these, dtype, DEVICE, DIM, time.monotonic(), False, contender(dtype), triton=False  # type: ignore[arg-type]
        )  # fmt: skip
        bad += sum(row.not_measured.startswith(fusion_gpu.WRONG) for row in rows)
    return int(bad > 0)


def stress() -> int:
    """The persistent launch with random delays before each arrival and after each wait, against the phased one."""
    bad = 0
    for m, steps in ((2, 16), (3, 16), (4, 16), (2, 64)):
        case = fusion_gpu.make_case(m, steps, DIM, "float16", DEVICE, kernels=False)
        phased = FusedFusion(case.weights, 1, steps, "float16", DEVICE, "phased", last=True)
        kernel = FusedFusion(case.weights, 1, steps, "float16", DEVICE, "persistent", last=True)
        if kernel.kernel == "native":
            sm = "sm_" + "".join(map(str, torch.cuda.get_device_capability()))
            slow = native.compile_native(kernel.schedule, sm, stress=True)
            kernel._function = native.load(slow, kernel._shared)
        differ, runs = 0, 2000
        for i in range(runs):
            if i % 100 == 0:
                features, present = fusion_gpu.random_inputs(case, masked=i % 200 == 0)
                want = phased.raw(features, present)
            kernel.work.fill_(float("nan"))
            got = kernel.raw(features, present)
            differ += not all(torch.equal(a, b) for a, b in zip(got, want))
        bad += differ
        emit("stress", M=m, S=steps, kernel=kernel.kernel, runs=runs, differ=differ)
    return int(bad > 0)


def run(name: str, command: list[str], **environment: str) -> bool:
    """One command as a row: its exit status, seconds and last lines."""
    began = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=200, env={**os.environ, **environment}
    )
    text = (done.stdout + done.stderr).strip().splitlines()
    emit("live", name=name, rc=done.returncode, seconds=round(time.monotonic() - began, 1), tail=text[-12:])
    return done.returncode == 0


def live() -> int:
    """The demo bundle with a cubin for this GPU through the live loop, with torch-triton too; one launch under ncu."""
    sm = f"sm_{''.join(map(str, torch.cuda.get_device_capability()))}"
    bundle, python = str(out() / "demo.jmt"), sys.executable
    demo = next((ROOT / "jmt_edge/engine/bundles").glob("*pain*"))
    shutil.rmtree(bundle, ignore_errors=True)
    good = [
        run("build", [python, "-m", "jmt_edge", "build", str(demo), "--precision", "fp32", "--builder", "onnxruntime",
                      "--windows", "2", "--cubin", sm, "--out", bundle]),
    ]  # fmt: skip
    for backend in ("cubin", "torch-triton"):
        command = [python, "-m", "jmt_edge", "live", "--bundle", bundle, "--duration", "10", "--speed", "max",
                   "--output", "jsonl", "--backend", backend, "--eda", "sim:", "--camera", "sim:"]  # fmt: skip
        good.append(run(f"live {backend}", command))
    shutil.rmtree(bundle, ignore_errors=True)
    ncu = shutil.which("ncu")
    if ncu:
        counters = ["sm__cycles_elapsed.max", "dram__bytes_read.sum", "lts__t_bytes.sum", "gpu__time_duration.sum"]
        good.append(
            run("ncu", [ncu, "--clock-control", "none", "--metrics", ",".join(counters), "-k", "fusion_kernel", "-c",
                        "3", python, str(Path(__file__)), "arithmetic", "persistent"], ARITHMETIC="1"),
        )  # fmt: skip
    return int(not all(good))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step")
    parser.add_argument("argument", nargs="?")
    options = parser.parse_args()
    if options.step == "collect":
        return collect(Path(options.argument))
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: run this on a machine with an NVIDIA GPU")
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    if options.step == "arithmetic":
        if os.environ.get("ARITHMETIC"):
            del ARITHMETIC[1:]
        return arithmetic(options.argument)
    return {"phases": phases, "contenders": contenders, "sizes": sizes, "live": live, "stress": stress}[options.step]()


def collect(folder: Path, results: Path = RESULTS) -> int:
    """`rows.jsonl` below `folder` -> one JSON per device and date; prints the tables for the docs."""
    rows = [json.loads(line) for file in sorted(folder.rglob("rows.jsonl")) for line in file.read_text().splitlines()]
    known = [row for row in rows if row["kind"] == "facts"]
    if not known:
        print(f"{folder} has no rows of a device: run a step first", file=sys.stderr)
        return 2
    names = {row["device"]["name"] for row in known}
    if len(names) > 1:
        print(f"rows of {', '.join(sorted(names))} do not belong in one table: collect them apart", file=sys.stderr)
        return 2
    report = {
        "date": known[0]["date"], "command": known[-1]["command"], "device": known[-1]["device"],
        "machine": known[-1]["machine"], "calls": fusion_gpu.CALLS, "sets": fusion_gpu.SETS,
        "replays": fusion_gpu.REPLAYS, "rows": [row for row in rows if row["kind"] != "facts"],
    }  # fmt: skip
    device = "-".join("".join(c if c.isalnum() else " " for c in report["device"]["name"]).lower().split())
    path = results / f"{report['date'][:10]}-gpu-day-{device}.json"
    write(path, report)
    print("\n".join(markdown(report)))
    print(f"wrote {path}")
    return 0


def markdown(report: dict[str, Any]) -> list[str]:
    """The docs' tables: the last row measured of each contender, phase, mode and size."""
    device, versions = report["device"], report["machine"]["versions"]
    lines = [
        f"Measured {report['date'][:10]} on one {device['name']} ({device['multiprocessors']} multiprocessors, CUDA "
        f"{device['cuda']}, torch {versions.get('torch')}, triton {versions.get('triton')}; large copy "
        f"{device['bandwidth'] / 1e12:.2f} TB/s); B = 1, d = 512.",
        "", "| M | S | precision | variant | µs warm | µs cold | launches | × floor warm | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    last = {(r["M"], r["S"], r["dtype"], r["variant"]): r for r in report["rows"] if r["kind"] == "contender"}
    for r in last.values():
        if r["not_measured"]:
            lines.append(f"| {r['M']} | {r['S']} | {r['dtype']} | {r['variant']} | {r['not_measured']} | | | | |")
        else:
            lines.append(
                f"| {r['M']} | {r['S']} | {r['dtype']} | {r['variant']} | {r['warm_us']:.1f} | {r['cold_us']:.1f} | "
                f"{r['launches']} | {r['warm_to_floor']:.1f} | {r['error']:.1e} |"
            )
    phases_of = {(r["M"], r["S"], r["phase"]): r for r in report["rows"] if r["kind"] == "phase"}
    if phases_of:
        lines += ["", "| phase | items | µs warm | µs cold |", "|---|---|---|---|"]
        for (_, _, phase), r in phases_of.items():
            cold = "" if r["cold_us"] is None else f"{r['cold_us']:.1f}"
            lines.append(f"| {'a barrier alone' if phase < 0 else phase} | {r['items']} | {r['us']:.1f} | {cold} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
