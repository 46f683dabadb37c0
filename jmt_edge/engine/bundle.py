"""The bundle `NAME.jmt/`: a folder with a manifest, ONNX graphs, safetensors and what `build` adds.

`manifest.json` names every file with its sha256, and loading verifies all of them, because an engine plan
is code and an altered weight is a wrong number. Nothing in a bundle is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BundleError, ConfigError
from ..tasks import Task

SCHEMA = 1
MANIFEST = "manifest.json"
INTENDED_USE = "Research prototype. Not a medical device; not for clinical use."
_REQUIRED = ("schema", "name", "task", "networks", "files", "provenance", "intended_use")


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `id` is `name@sha8`, the first eight hex digits of the manifest's sha256."""

    path: Path
    manifest: dict[str, Any]
    task: Task
    id: str

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def demo(self) -> bool:
        """Weights trained on synthetic data: whoever shows a result says so."""
        return bool(self.manifest.get("demo", False))

    @property
    def networks(self) -> dict[str, dict[str, Any]]:
        """Network name (a modality, or `fusion`) -> {"onnx": file, "precision": ..., "inputs": ..., "outputs": ...}."""
        return dict(self.manifest["networks"])

    def file(self, name: str) -> Path:
        """Path of a file that stands in the manifest. Raises BundleError for any other name."""
        if name not in self.manifest["files"]:
            raise BundleError(f"bundle {self.path} lists no file '{name}'; rebuild it with `jmt-edge build`")
        return self.path / name


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle. Raises BundleError, one sentence, for whatever is wrong with it."""
    root = Path(path)
    manifest_path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(f"no bundle at {root}: give the folder NAME.jmt that `jmt-edge train` or `build` wrote")
    if not manifest_path.is_file():
        raise BundleError(f"{root} has no {MANIFEST}, so it is not a bundle; give the folder NAME.jmt itself")
    raw = manifest_path.read_bytes()
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        raise BundleError(f"{manifest_path} is not readable JSON ({error}); restore or rebuild the bundle") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise BundleError(f"{root} has bundle schema {found!r}, this version reads {SCHEMA}; rebuild the bundle")
    missing = [key for key in _REQUIRED if key not in manifest]
    if missing:
        raise BundleError(f"{manifest_path} lacks {', '.join(missing)}; rebuild the bundle")
    _verify_files(root, manifest["files"])
    try:
        task = Task.from_dict(manifest["task"])
    except ConfigError as error:
        raise BundleError(f"{manifest_path}: {error}") from None
    return Bundle(root, manifest, task, f"{manifest['name']}@{hashlib.sha256(raw).hexdigest()[:8]}")


def cpu_graph(bundle: Bundle, network: str, runtime: str = "onnxruntime") -> tuple[Path, str]:
    """(ONNX file, precision) of a network for a CPU: what `build --builder onnxruntime` chose for `runtime`
    (onnxruntime or openvino), else for onnxruntime, else the export's.

    Raises BundleError where the bundle has no such network.
    """
    engines = bundle.manifest.get("engines", {})
    chosen = (engines.get(runtime) or engines.get("onnxruntime") or {}).get("networks", {})
    entry = chosen.get(network) or bundle.networks.get(network)
    if entry is None:
        raise BundleError(f"bundle {bundle.path} has no network '{network}'; export it again")
    return bundle.file(str(entry["onnx"])), str(entry.get("precision", "fp32"))


def _verify_files(root: Path, files: Any) -> None:
    if not isinstance(files, dict):
        raise BundleError(f"{root / MANIFEST}: 'files' is not a table of hashes; rebuild the bundle")
    for name, digest in files.items():
        file = root / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{root / MANIFEST} names '{name}', which lies outside the bundle; do not use it")
        if not file.is_file():
            raise BundleError(f"bundle {root} lacks its file '{name}'; copy the whole folder again or rebuild it")
        if sha256_file(file) != digest:
            raise BundleError(f"bundle file {file} was altered (its sha256 is not the manifest's); do not use it")


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes | Path],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle and load it back. `files` maps names inside the bundle to contents or to files to copy.

    The folder appears whole or not at all. Raises BundleError where `path` exists and `overwrite` is false.
    """
    root = Path(path)
    if root.exists() and not overwrite:
        raise BundleError(f"{root} exists; choose another --out, or remove it first")
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        digests: dict[str, str] = {}
        for name, content in sorted(files.items()):
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)
            digests[name] = sha256_file(target)
        whole = {"schema": SCHEMA, "intended_use": INTENDED_USE, "provenance": {}, **manifest, "files": digests}
        (partial / MANIFEST).write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
        if root.exists():
            shutil.rmtree(root)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return load_bundle(root)
