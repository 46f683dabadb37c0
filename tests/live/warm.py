"""`jmt-edge` in a process of its own that need not import it: forked from one that has, which is most of a short run.

Each call begins in the state after the imports, ends as an interpreter ends, and may be limited and measured. What a
fresh interpreter does before it is the subject of `test_live_cli.py` and `test_package_layout.py`.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

IMPORTED = (
    "av",
    "jmt_edge.opencv",
    "jmt_edge.cli.live",
    "jmt_edge.media.sound",
    "jmt_edge.preprocessing.eda",
    "jmt_edge.recording.reader",
)  # fmt: skip - ONNX Runtime starts a thread, which a fork would lose


@dataclass
class Ended:
    returncode: int  # minus the signal's number where one ended it
    stdout: str
    stderr: str
    peak: int  # MB


def jmt_edge(*args: object, seconds: int = 120, memory: int = 4 << 30) -> Ended:
    """`jmt-edge ARGS`, which SIGALRM ends after `seconds` and whose data may take `memory` bytes."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        call = {"args": [*map(str, args)], "cwd": os.getcwd(), "env": {**os.environ, "OMP_NUM_THREADS": "1"},
                "out": str(out), "err": str(err), "seconds": seconds, "memory": memory}  # fmt: skip
        server.stdin.write(json.dumps(call) + "\n")
        server.stdin.flush()
        status, peak = json.loads(server.stdout.readline())
        return Ended(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text(), peak // 1024)


@cache
def _server() -> subprocess.Popen[str]:
    return subprocess.Popen(  # ends when its standard input does: with this process
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _serve() -> None:
    for name in IMPORTED:
        __import__(name)
    for line in iter(sys.stdin.readline, ""):
        assert len(os.listdir("/proc/self/task")) == 1, "a fork copies one thread"
        if not (child := os.fork()):
            return _become(json.loads(line))
        _, status, usage = os.wait4(child, 0)
        print(json.dumps([status, usage.ru_maxrss]), flush=True)


def _become(call: dict) -> None:
    new = os.O_WRONLY | os.O_CREAT
    for fd, (path, how) in enumerate([("/dev/null", os.O_RDONLY), (call["out"], new), (call["err"], new)]):
        os.dup2(os.open(path, how, 0o600), fd)
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["cwd"])
    resource.setrlimit(resource.RLIMIT_DATA, (call["memory"], call["memory"]))
    signal.alarm(call["seconds"])
    sys.argv = ["jmt-edge", *call["args"]]
    runpy.run_module("jmt_edge", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
