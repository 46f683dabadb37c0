"""What the fusion kernels should take, phase by phase: `python -m benchmarks.kernel_model --device h200`.

Calibrated on the H200 of 2026-11-26 (`results/2026-11-26-gpu-day-nvidia-h200*.json`); everything for another device is
a prediction. A phase takes

    barrier + max over programs of the sum over its items of (fixed(operation) + bytes / (32 B a cycle))

at the device's clock, or its weight bytes over memory bandwidth plus one item's fixed time where L2 does not hold all
weights, whichever is longer. `fixed` is what an item took on the H200 beyond barrier and bytes: trips to L2, the chain
of dependent instructions, the block's own barriers. The first design is the table of twelve phases in Triton, as it
was measured; the second the seven phases of `fusion.cu`. M = 2, S = 16, B = 1, the last step's outputs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from jmt_edge.kernels.schedule import ATTEND, CROSS, HEAD, INPUT, LAST, LAYER, NORM, PLAIN, Tiles, build_schedule
from jmt_edge.kernels.weights import FusionWeights

CLOCK = 1.98  # GHz of the H200 that was measured
BARRIER = {"first": 1.18, "second": 1.09}  # us on it
LAUNCH = 1.5  # us of a node of a graph
# us on it of one item beyond its bytes; first design: phases 0, 10, 9, 1 and 11 of its day, by rounds
FIXED = {
    "first": {INPUT: 3.9, NORM: 4.2, PLAIN: 3.2, ATTEND: 3.7, HEAD: 3.3},
    "second": {INPUT: 3.2, PLAIN: 1.5, LAYER: 2.2, CROSS: 2.5, LAST: 2.8},
}
L2_BYTES_A_CYCLE = 32  # of one multiprocessor


@dataclass(frozen=True)
class Device:
    """Multiprocessors, GHz, GB/s, MB of L2: data sheets; of the H200 bandwidth and clock as measured."""

    name: str
    sms: int
    clock: float
    bandwidth: float
    l2: float


DEVICES = {
    "h200": Device("H200", 132, 1.98, 4200, 60),
    "h100": Device("H100 SXM", 132, 1.98, 3000, 50),
    "agx-orin": Device("Jetson AGX Orin", 16, 1.3, 204.8, 4),
    "orin-nano": Device("Jetson Orin Nano", 8, 1.02, 102, 4),
    "thor": Device("Jetson Thor", 20, 1.57, 273, 32),
}


def phases(device: Device, design: str, dtype: str, weights: FusionWeights) -> list[tuple[str, int, float, float]]:
    """(operation, items, weight bytes, predicted us) of each phase."""
    tiles = Tiles(16, 64, programs=device.sms, merge=design == "second")
    schedule = build_schedule(weights, 1, 16, dtype, tiles, last=True)  # type: ignore[arg-type]
    plan = schedule.plan(schedule.launches("persistent"), device.sms).rows.reshape(device.sms, -1, 32)
    names = dict(enumerate(("INPUT", "NORM", "PLAIN", "ATTEND", "HEAD", "LAYER", "CROSS", "LAST")))
    scale, size = CLOCK / device.clock, schedule.weights.itemsize
    counts = [row[28] for row in plan[:, 0]]
    done, found = [0] * device.sms, []
    for number, (first, entries) in enumerate(schedule.phases.tolist()):
        table = schedule.table[first : first + entries]
        ops = table[:, 0]
        longest, items = 0.0, int(table[:, 24].sum())
        after = {tuple(e) for e in table[:, :24].tolist()}
        for program in range(device.sms):
            took = 0.0
            while done[program] < counts[program] and tuple(plan[program, done[program], :24]) in after:
                op, units, outs = (int(plan[program, done[program], i]) for i in (0, 2, 3))
                loaded = units * outs * 16 * 512 * size + units * 16 * 1024
                took += FIXED[design][op] * scale + loaded / (L2_BYTES_A_CYCLE * device.clock * 1e3)
                done[program] += 1
            longest = max(longest, took)
        total = float((table[:, 2] * table[:, 3] * 16 * 512 * size * (ops < 3) + 0).sum())
        total += float((table[:, 3] * 16 * 512 * size * (ops > 4) * (ops < 7)).sum())
        if device.l2 * 1e6 < schedule.weights.nbytes:
            longest = max(longest, total / device.bandwidth / 1e3 + FIXED[design][int(ops[0])] * scale)
        barrier = BARRIER[design] * scale if number + 1 < len(schedule.phases) else 0.0
        found.append((names[int(ops[0])], items, total, longest + barrier))
    return found


def demo_weights() -> FusionWeights:
    """Of the papers' size; only the shapes matter."""
    import torch

    from jmt_edge.kernels.layout import weights_of
    from jmt_edge.models.fusion import JMT

    torch.manual_seed(0)
    return weights_of(JMT(("face", "voice"), 512, ("valence", "arousal")).double().eval())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(DEVICES), default="h200")
    parser.add_argument("--dtype", choices=["float16", "int8"], default="float16")
    options = parser.parse_args()
    device, weights = DEVICES[options.device], demo_weights()
    floor = weights.matrix_elements * (1 if options.dtype == "int8" else 2) / device.bandwidth / 1e3
    print(
        f"{device.name}, {options.dtype}: predicted; the folded weights at {device.bandwidth} GB/s take {floor:.1f} us"
    )
    for design in ("first", "second"):
        rows = phases(device, design, options.dtype, weights)
        print(f"\n| {design} design | operation | items | MB | us |\n|---|---|---|---|---|")
        for number, (op, items, size, us) in enumerate(rows):
            print(f"| {number} | {op} | {items} | {size / 1e6:.1f} | {us:.1f} |")
        total = LAUNCH + float(np.sum([us for *_, us in rows]))
        print(f"| all, and the launch | | | | {total:.0f} ({total / floor:.1f} x floor) |")


if __name__ == "__main__":
    main()
