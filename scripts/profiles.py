"""The run-time tests in several environments: `make test-profiles`, or `python scripts/profiles.py [NAME ...]`.

`deploy/profiles.toml` says which. Each gets an environment of its own under `.cache/profiles/`, with the run-time, its
extras and the tests' own packages, but no torch. A run that was stopped resumes: a folder of tests that has passed on
these sources is not run again, and the output says so (`--fresh` runs everything). `--write` makes the constraints
files for users instead; `--json FILE` writes what was installed, how the tests ended, and what was skipped and why.
Options that are not known go to pytest.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("capture", "eda_capture", "simulated", "media", "clips", "engine", "live", "recording", "page", "beds")
EXTRAS = "build,record,page,formats,lsl,mqtt,sign"
TOOLS = (
    "pytest>=8.2", "pytest-xdist>=3.6", "pytest-timeout>=2.3", "pytest-benchmark>=5.1", "hypothesis>=6.115",
    "psutil>=6", "httpx>=0.27", "soundfile>=0.12", "setuptools>=77",
)  # fmt: skip
# `--quick`: where the versions of NumPy, SciPy, OpenCV, onnxruntime and the extras meet; minutes instead of an hour
QUICK = (
    "capture/test_capture_opencv", "media/test_media_video", "media/test_media_sound", "media/test_media_eda_formats",
    "clips/test_clips_cut", "engine/test_engine_devices", "live/test_live_demo", "recording/test_recording_export",
    "recording/test_recording_doctor", "page/test_page_server",
)  # fmt: skip
# a test module that imports one of these, itself or by a module beside it, cannot run without torch
NEED_TORCH = (
    "torch", "triton", "jmt_edge.models", "jmt_edge.training", "jmt_edge.kernels", "jmt_edge.compiler.export",
    "jmt_edge.compiler.cubins",
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """See `deploy/profiles.toml`."""

    name: str
    title: str
    python: str
    resolution: str = "highest"
    constraints: tuple[str, ...] = ()
    system: tuple[str, ...] = ()

    def constraints_file(self) -> str:
        """What `deploy/constraints/NAME.txt` says."""
        brought = [re.split("[<>=]", line)[0] for line in self.system]
        lines = [
            f"# {self.title}, Python {self.python}. Made from deploy/profiles.toml: python scripts/profiles.py --write",
            f"# From the system, not from pip: {', '.join(brought)}.",
            *self.constraints,
        ]
        return "\n".join(lines) + "\n"


def load_profiles(file: Path = ROOT / "deploy" / "profiles.toml") -> list[Profile]:
    table = tomllib.loads(file.read_text())
    return [
        Profile(name, **{key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()})
        for name, entry in table.items()
    ]


def constraints_files(profiles: Sequence[Profile]) -> dict[str, str]:
    """Name -> content, of the profiles that a user can ask pip to keep to."""
    return {f"{p.name}.txt": p.constraints_file() for p in profiles if p.constraints}


def modules_of_tests(root: Path) -> tuple[list[Path], list[Path]]:
    """(the test modules that run without torch, those that do not)."""
    modules = {p.stem: p for p in root.rglob("*.py")}
    wants: dict[str, bool] = {}

    def wants_torch(name: str) -> bool:
        if name not in wants:
            wants[name] = False  # a cycle asks nothing more
            names = _imports(modules[name])
            beside = {found.split(".")[0] for found in names} & set(modules)
            itself = any(found == need or found.startswith(f"{need}.") for found in names for need in NEED_TORCH)
            wants[name] = itself or any(map(wants_torch, sorted(beside)))
        return wants[name]

    files = [f for folder in TESTS for f in sorted((root / folder).glob("test_*.py"))]
    return [f for f in files if not wants_torch(f.stem)], [f for f in files if wants_torch(f.stem)]


def _imports(path: Path) -> list[str]:
    """Modules that a file imports when it is imported, not inside a function."""
    found = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def interpreter(uv: str, version: str) -> str | None:
    """A Python of this version on the machine, or one that uv can fetch; None where there is neither."""
    for folder in sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*")):
        if (folder / "bin" / "python").is_file():
            return str(folder / "bin" / "python")
    done = subprocess.run([uv, "python", "find", version], capture_output=True, text=True, cwd="/")
    if done.returncode == 0:
        return done.stdout.strip()
    done = subprocess.run([uv, "python", "install", version], capture_output=True, text=True, timeout=300)
    return version if done.returncode == 0 else None


# what a run-time must do before any test is worth its time: each in a process of its own
SMOKE = (
    ("--version",), ("config", "show"),
    ("live", "--task", "trimodal", "--duration", "4", "--speed", "max", "--output", "none"),
)  # fmt: skip


def smoke(executable: Path) -> dict[str, str]:
    """Command -> `ok`, or what it wrote to standard error."""
    found = {}
    for words in SMOKE:
        command = [str(executable), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=executable.parent, env=_environment())
        found[" ".join(words)] = "ok" if done.returncode == 0 else done.stderr[-500:]
    return found


# what the tests of a folder depend on
SOURCES = ("jmt_edge", "kernels", "calibration", "training", "tests", "examples", "deploy", "docs", "pyproject.toml")


def fingerprint(profile: Profile, chosen: Sequence[str]) -> str:
    """Of the sources, changes that are not committed included, of the profile and of what is run."""
    hasher = hashlib.sha256(json.dumps([asdict(profile), EXTRAS, TOOLS, *chosen]).encode())
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCES]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in sorted(set(map(os.fsdecode, names)) - {""}):
        hasher.update(os.fsencode(name))
        hasher.update((ROOT / name).read_bytes() if (ROOT / name).is_file() else b"")
    return hasher.hexdigest()[:16]


class Kept:
    """What earlier runs of a profile on these sources have found: folder of tests -> its result."""

    def __init__(self, file: Path, of: str) -> None:
        self._file, self._of = file, of
        before = json.loads(file.read_text()) if file.is_file() else {}
        self.folders: dict[str, dict[str, Any]] = before["folders"] if before.get("of") == of else {}

    def add(self, folder: str, result: dict[str, Any]) -> None:
        self.folders[folder] = result
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"of": self._of, "folders": self.folders}, indent=1))
        new.replace(self._file)


def install(profile: Profile, python: str, uv: str, place: Path) -> str:
    """Make the profile's environment in `place`: empty, or why it cannot be made."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for kind, lines in (("constraints", profile.constraints), ("overrides", profile.system)):
        (place / f"{kind}.txt").write_text("".join(f"{line}\n" for line in lines))
    subprocess.run([uv, "venv", "--quiet", "--python", python, str(place / "venv")], check=True)
    command = [
        uv, "pip", "install", "--quiet", "--python", str(place / "venv" / "bin" / "python"), "--resolution",
        profile.resolution, "--constraints", str(place / "constraints.txt"), "--overrides",
        str(place / "overrides.txt"), "--editable", f".[{EXTRAS}]", *TOOLS,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stderr.strip()[-1500:] if done.returncode else ""


def run(
    profile: Profile, uv: str, more: Sequence[str], *, quick: bool, only_smoke: bool, fresh: bool
) -> dict[str, Any]:
    """Install the profile and run its tests: what was installed, how the tests ended, how long both took."""
    report: dict[str, Any] = {"title": profile.title, "python": profile.python}
    python = interpreter(uv, profile.python)
    if python is None:
        return report | {"not_run": f"no Python {profile.python} here, and none could be fetched"}
    place = ROOT / ".cache" / "profiles" / profile.name
    of = fingerprint(profile, [str(quick), *more])
    whole = (place / "venv" / "bin" / "pytest").is_file()
    kept = Kept(place / "kept.json", of if whole and not fresh else "")
    if not kept.folders:
        began = time.monotonic()
        if why_not := install(profile, python, uv, place):
            return report | {"not_run": f"cannot be installed: {why_not}"}
        report["install_seconds"] = round(time.monotonic() - began, 1)
        kept = Kept(place / "kept.json", of)
    freeze = [uv, "pip", "freeze", "--python", str(place / "venv" / "bin" / "python")]
    frozen = subprocess.run(freeze, capture_output=True, text=True, check=True)
    report["packages"] = sorted(line for line in frozen.stdout.splitlines() if "==" in line)
    report["smoke"] = smoke(place / "venv" / "bin" / "jmt-edge")
    report["passed"] = set(report["smoke"].values()) == {"ok"}
    if only_smoke:
        return report
    files, left_out = modules_of_tests(ROOT / "tests")
    if quick:
        files = [f for f in files if f.relative_to(ROOT / "tests").as_posix().startswith(QUICK)]
        report["quick"] = [f.stem for f in files]
    report["left_out"] = {"reason": "torch is not installed", "files": [str(f.relative_to(ROOT)) for f in left_out]}
    for folder in TESTS:
        chosen = [f for f in files if f.parent.name == folder]
        if folder in kept.folders:
            print(f"  {folder}: {_told(kept.folders[folder])} (in an earlier run)", flush=True)
        elif chosen:
            result = run_folder(place / "venv" / "bin" / "pytest", chosen, place / f"{folder}.log", more)
            print(f"  {folder}: {_told(result)}", flush=True)
            if not result["failed"]:
                kept.add(folder, result)
            report.setdefault("folders", {})[folder] = result
    found = {**kept.folders, **report.get("folders", {})}
    report["folders"] = {folder: found[folder] for folder in TESTS if folder in found}
    report["tests"] = _sum(result["tests"] for result in report["folders"].values())
    report["seconds"] = round(sum(result["seconds"] for result in report["folders"].values()), 1)
    report["failed"] = [name for result in report["folders"].values() for name in result["failed"]]
    report["passed"] = report["passed"] and not report["failed"]
    return report


def run_folder(pytest: Path, files: Sequence[Path], log: Path, more: Sequence[str]) -> dict[str, Any]:
    """Run the tests of one folder: the counts, those that failed, the reasons of those that were skipped."""
    began = time.monotonic()
    chosen = "not realtime and not alone and not gpu and not slow"
    command = [str(pytest), "-q", "-m", chosen, *more, *map(str, files)]
    with log.open("w") as out:
        code = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=_environment()).returncode
    text = log.read_text()
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.M)
    if code not in (0, 5) and not failed:  # 5: no test was chosen
        failed = [f"{files[0].parent.name}: pytest ended with {code}; see {log.relative_to(ROOT)}"]
    skipped = sorted(set(re.findall(r"^SKIPPED \[\d+\] (.*)$", text, re.M)))
    seconds = round(time.monotonic() - began, 1)
    return {"tests": _counts(text), "seconds": seconds, "failed": failed, "skipped": skipped}


def _told(result: Mapping[str, Any]) -> str:
    said = ", ".join(f"{number} {word}" for word, number in result["tests"].items()) or "no test"
    return "".join([f"{said} in {result['seconds']:.0f} s", *(f"\n    skipped: {why}" for why in result["skipped"])])


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _environment() -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def _counts(text: str) -> dict[str, int]:
    """`{"passed": 812, "skipped": 9}` of pytest's last line."""
    lines = [line for line in text.splitlines() if re.search(r"\d+ (passed|failed|error)", line)] or [""]
    return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", lines[-1].split(" in ")[0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="profiles to run (default: all)")
    parser.add_argument("--write", action="store_true", help="write deploy/constraints/ and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--quick", action="store_true", help="some of the tests: those that depend on versions")
    parser.add_argument("--smoke", action="store_true", help="no tests: only whether a live run works")
    parser.add_argument("--fresh", action="store_true", help="install and run again what has passed on these sources")
    parser.add_argument("--uv", default=shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv"), metavar="PATH")
    arguments, more = parser.parse_known_args()
    profiles = load_profiles()
    if arguments.write:
        for name, content in constraints_files(profiles).items():
            (ROOT / "deploy" / "constraints" / name).write_text(content)
        return
    unknown = set(arguments.names) - {p.name for p in profiles}
    if unknown:
        parser.error(f"no profile {', '.join(sorted(unknown))}; choose {', '.join(p.name for p in profiles)}")
    results = {}
    for profile in profiles:
        if not arguments.names or profile.name in arguments.names:
            print(f"{profile.name}: {profile.title}, Python {profile.python}", flush=True)
            results[profile.name] = one = run(
                profile, arguments.uv, more, quick=arguments.quick, only_smoke=arguments.smoke, fresh=arguments.fresh
            )
            said = one.get("not_run") or one.get("tests") or one["smoke"]
            print(f"  {said}", *one.get("failed", []), sep="\n  ", flush=True)
            if arguments.json:
                machine = {
                    "machine": platform.machine(),
                    "libc": " ".join(platform.libc_ver()),
                    "cores": os.cpu_count(),
                }
                before = json.loads(arguments.json.read_text())["profiles"] if arguments.json.is_file() else {}
                report = {"machine": machine, "profiles": {**before, **results}}
                arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(any("not_run" not in one and not one["passed"] for one in results.values()))


if __name__ == "__main__":
    main()
