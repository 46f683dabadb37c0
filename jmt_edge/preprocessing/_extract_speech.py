"""Recreate `data/silero_vad.onnx` from the wheel that carries it.

    pip download --no-deps silero-vad==6.2.3
    python -m jmt_edge.preprocessing._extract_speech silero_vad-6.2.3-py3-none-any.whl

The graph is taken as it is: the variant for 16 kHz that computes several steps in one call.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from .speech import WEIGHTS

WHEEL_SHA256 = "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8"
MEMBER = "silero_vad/data/silero_vad_16k_sequence.onnx"
MEMBER_SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"


def main(wheel: Path) -> None:
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise SystemExit(f"{wheel} is not silero_vad-6.2.3-py3-none-any.whl (sha256 differs); download it from PyPI")
    with zipfile.ZipFile(wheel) as archive:
        graph = archive.read(MEMBER)
    if hashlib.sha256(graph).hexdigest() != MEMBER_SHA256:
        raise SystemExit(f"{MEMBER} inside {wheel} is not the known file (sha256 differs)")
    WEIGHTS.parent.mkdir(exist_ok=True)
    WEIGHTS.write_bytes(graph)
    print(f"{WEIGHTS}: sha256 {MEMBER_SHA256}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
