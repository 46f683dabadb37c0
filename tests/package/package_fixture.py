"""The distributions that a release would publish, built once from a copy of the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Distributions:
    """tracked: names of the checkout's files. wheel: built from the checkout; from_sdist: from the sdist.
    unpacked: the wheel's content, as an installation has it."""

    tracked: frozenset[str]
    sdist: Path
    wheel: Path
    from_sdist: Path
    unpacked: Path


def build(folder: Path) -> Distributions:
    """Both distributions of a copy of the checkout, in `folder`. Skips where git does not say what belongs to it."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = (
        subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False) if shutil.which("git") else None
    )
    if found is None or found.returncode:
        pytest.skip("not a git checkout, so it is unknown which files belong to it")
    tracked = frozenset(name for name in found.stdout.split("\0") if (ROOT / name).is_file())
    for kind, copy in (("--wheel", folder / "a"), (None, folder / "b")):
        for name in tracked:  # without build/ and egg-info, which setuptools would read
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
        command = [sys.executable, "-m", "build", "--no-isolation", *([kind] if kind else []), str(copy)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,), (wheel,), (from_sdist,) = (
        list((folder / where / "dist").glob(pattern))
        for where, pattern in (("b", "*.tar.gz"), ("a", "*"), ("b", "*.whl"))
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return Distributions(tracked, sdist, wheel, from_sdist, folder / "unpacked")
