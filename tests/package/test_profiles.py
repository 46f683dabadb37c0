"""The environments that are tested, the constraints that users get, and the one of `make demo`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def profiles() -> ModuleType:
    spec = importlib.util.spec_from_file_location("profiles", ROOT / "scripts" / "profiles.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["profiles"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_the_constraints_of_users_are_those_that_are_tested(profiles: ModuleType) -> None:
    made = profiles.constraints_files(profiles.load_profiles())
    kept = {file.name: file.read_text() for file in (ROOT / "deploy" / "constraints").iterdir()}
    assert kept == made and set(made) == {"jetpack6.txt", "jetpack7.txt"}
    for text in made.values():
        lines = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
        assert {"numpy", "scipy"} <= {line.name for line in lines}
        assert not {line.name for line in lines} & {"opencv-python-headless"}, "that is the system's"


def test_every_profile_allows_what_the_project_does(profiles: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    for profile in profiles.load_profiles():
        assert int(low) <= int(profile.python.split(".")[1]) < int(high)
    assert {"lowest", "jetpack6", "jetpack7", "newest"} == {p.name for p in profiles.load_profiles()}


def test_no_pyarrow_that_needs_numpy_2_beside_numpy_1(profiles: ModuleType) -> None:
    """pyarrow 26 does not declare what it needs; it has no wheel for Python 3.10."""
    for profile in profiles.load_profiles():
        kept = {line.name: line.specifier for line in map(Requirement, profile.constraints)}
        if "numpy" in kept and "2.0" not in kept["numpy"] and profile.python != "3.10":
            assert "26.0.1" not in kept["pyarrow"] and "25.0.1" in kept["pyarrow"]


def test_modules_that_need_torch_are_told_apart(profiles: ModuleType) -> None:
    run, left_out = profiles.modules_of_tests(ROOT / "tests")
    names = {f.stem for f in run}, {f.stem for f in left_out}
    assert {"test_live_loop", "test_media_video", "test_page_server", "test_engine_cli"} <= names[0]
    assert {"test_engine_torch", "test_clips_parity"} <= names[1] and not names[0] & names[1]


def test_the_demo_installs_the_run_time_alone(tmp_path: Path) -> None:
    """What the script asks of uv on this machine, by a uv that only writes it down."""
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$UV_PROJECT_ENVIRONMENT $*" >> {tmp_path}/asked\n')
    uv.chmod(0o755)
    script = ROOT / "scripts" / "demo-environment.sh"
    subprocess.run([script, uv, tmp_path / "place"], check=True, cwd=ROOT)
    assert (tmp_path / "asked").read_text() == f"{tmp_path}/place sync --frozen --quiet --no-dev --no-editable\n"
    made = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, env=_bare()).stdout
    assert "demo-environment.sh" in made and ".cache/demo/bin/jmt-edge live" in made
    assert "system-packages" not in made and " sync" not in made


def _bare() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
