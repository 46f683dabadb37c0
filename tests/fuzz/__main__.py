"""Damage good inputs and give them to every reader: `python -m tests.fuzz --minutes 10 --seed 1 --out FILE.json`.

An input is taken, or refused with one sentence; all else is a fault (see `fuzz_run`), which is made short, kept in
`tests/fuzz/cases` and listed in the output. Exits 1 where there was one. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

from fuzz_readers import READERS  # noqa: E402
from fuzz_run import Shots, Tally, case_name, minimised, report  # noqa: E402

from jmt_edge.machine import describe  # noqa: E402

SLICE = 10.0  # s for one reader at a time
LARGEST = 4096  # bytes of a case that is kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="altogether")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--reader", action="append", choices=sorted(READERS), help="only these; repeatable")
    parser.add_argument("--inputs", type=int, help="stop a reader after this many inputs")
    parser.add_argument("--keep", type=Path, default=HERE / "cases", help="the folder of the kept cases")
    args = parser.parse_args()
    began, end = time.monotonic(), time.monotonic() + 60 * args.minutes
    names = args.reader or list(READERS)
    tallies = {name: Tally() for name in names}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        shots = {}
        for name in names:
            (folder := Path(scratch) / name.replace(" ", "-")).mkdir()
            shots[name] = Shots(READERS[name](), args.seed, folder)
        following = dict.fromkeys(names, 0)
        most = args.inputs or sys.maxsize
        while time.monotonic() < end and (open_ := [n for n in names if following[n] < most]):
            for name in open_:
                left = max(0.0, end - time.monotonic())
                seconds = min(SLICE, left / len(open_) if left < SLICE * len(open_) else SLICE)
                if seconds <= 0:
                    break
                known = set(tallies[name].faults)
                following[name] = shots[name].run(
                    following[name], seconds, tallies[name], min(200_000, most - following[name])
                )
                for kind in set(tallies[name].faults) - known:
                    fault = tallies[name].faults[kind]
                    print(f"{name}: {kind}\n{fault.detail}", flush=True)
                    short = minimised(shots[name].reader, fault, shots[name].scratch)
                    if len(short) <= LARGEST:
                        place = args.keep / name.replace(" ", "-")
                        place.mkdir(parents=True, exist_ok=True)
                        (place / case_name(fault.name, short)).write_bytes(short)
                if args.out:
                    write(args.out, args, tallies, time.monotonic() - began)
    figures = report(tallies)
    for name, row in figures["readers"].items():
        print(f"{name:14} {row['inputs']:9} inputs, {row['taken']} taken, {row['refused']} refused, "
              f"{row['per_second']}/s, {len(row['faults'])} kinds of fault")  # fmt: skip
    print(f"{figures['inputs']} inputs, {figures['faults']} kinds of fault")
    return int(figures["faults"] > 0)


def write(out: Path, args: argparse.Namespace, tallies: dict[str, Tally], seconds: float) -> None:
    about = {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "seed": args.seed, "minutes": round(seconds / 60, 1),
        "machine": describe(),
    }  # fmt: skip
    partial = out.with_name(f".{out.name}")
    partial.write_text(json.dumps({**about, **report(tallies)}, indent=1) + "\n")
    partial.replace(out)


if __name__ == "__main__":
    sys.exit(main())
