"""What `aarch64-check.sh` compares: results of the same runs under QEMU and here. Exits 1 where they differ by more."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

MOST = 0.02  # of an output's range: 1 for a probability, 2 for valence and arousal


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def compare(arm: list[dict[str, Any]], here: list[dict[str, Any]]) -> dict[str, Any]:
    """Windows with the same verdicts, and the largest difference of each output as a share of its range."""
    faults = [f"{len(arm)} windows under QEMU, {len(here)} here"] if len(arm) != len(here) else []
    largest: dict[str, float] = {}
    numbers = 0
    for a, b in zip(arm, here):
        verdicts = [{name: q["ok"] for name, q in one["quality"].items()} for one in (a, b)]
        if verdicts[0] != verdicts[1] or (a["outputs"] is None) != (b["outputs"] is None):
            faults.append(f"window at {a['t']} s: {verdicts[0]} under QEMU, {verdicts[1]} here")
        for name, value in (a["outputs"] or {}).items():
            if b["outputs"] is not None:
                numbers += 1
                share = abs(value - b["outputs"][name]) / (1.0 if name == "pain" else 2.0)
                largest[name] = max(largest.get(name, 0.0), share)
    faults += [f"{name} differs by {share:.1%}" for name, share in largest.items() if share > MOST]
    if not numbers:
        faults.append("no window has a number")
    shown = {name: float(f"{share:.2g}") for name, share in largest.items()}
    return {"windows": len(arm), "numbers": numbers, "largest_difference": shown, "faults": faults}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tasks")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seconds = dict(line.split() for line in (args.folder / "seconds").read_text().splitlines())
    report: dict[str, Any] = {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "most": MOST,
                              "version": (args.folder / "version").read_text().strip(), "tasks": {}}  # fmt: skip
    for task in args.tasks.split(","):
        arm, here = (lines(args.folder / f"{task}-{where}.jsonl") for where in ("arm", "here"))
        report["tasks"][task] = {**compare(arm, here), "seconds_under_qemu": int(seconds[task])}
    first = args.tasks.split(",")[0]
    replayed = lines(args.folder / "replay.jsonl")
    report["replay_equal"] = [r["outputs"] for r in replayed] == [
        r["outputs"] for r in lines(args.folder / f"{first}-arm.jsonl")
    ]
    doctor = json.loads((args.folder / "doctor.json").read_text())
    report["doctor_can_run"] = doctor["can_run"]
    report["passed"] = bool(
        report["replay_equal"] and doctor["can_run"] and not any(t["faults"] for t in report["tasks"].values())
    )
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
