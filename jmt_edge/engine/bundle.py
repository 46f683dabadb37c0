"""The bundle `NAME.jmt/`: a folder with a manifest, ONNX graphs, safetensors and what `build` adds.

`manifest.json` lists every file with its sha256, and `manifest.sha256` holds its own, because an engine plan is code
and an altered weight is a wrong number. Opening a bundle verifies all of them and refuses files that are not listed,
links and everything else that is not a plain file. What is read later is read whole, verified again, and passed on as
bytes: nothing opens a bundle's file by its path, so a file that changes in between is refused too. Nothing in a bundle
is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BundleError, ConfigError
from ..plain_files import Kind, blocks, checksum, printable, read_small, walk
from ..signing import SIGNATURE
from ..tasks import Task
from .manifest import CHECKSUM, MANIFEST, SCHEMA, check_manifest, graph_files, read_manifest
from .novelty import Novelty, read_novelty
from .onnx_file import has_external_data
from .personal import OUTPUT, Personal
from .uncertainty import Uncertainty

INTENDED_USE = "Research prototype. Not a medical device; not for clinical use."
BUNDLE = Kind("bundle", BundleError)
_BLOCK = 1 << 20


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Stored:
    """A file of a bundle with the sha256 that its manifest lists."""

    path: Path
    sha256: str

    def read(self) -> bytes:
        """The verified content. Raises BundleError for an altered or missing file, or one that is not plain."""
        data = b"".join(blocks(self.path, BUNDLE, -1))
        self._compare(hashlib.sha256(data).hexdigest())
        return data

    def check(self, use: Callable[[bytes], object] = lambda block: None) -> None:
        """`read` in blocks, each given to `use`, without keeping the content."""
        digest = hashlib.sha256()
        for block in blocks(self.path, BUNDLE):
            digest.update(block)
            use(block)
        self._compare(digest.hexdigest())

    def _compare(self, found: str) -> None:
        if found != self.sha256:
            raise BundleError(
                f"bundle file {self.path} was altered (its sha256 is not the manifest's); do not use it, copy the "
                "whole bundle again"
            )


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `id` is `name@sha8`, the first eight hex digits of the manifest's sha256."""

    path: Path
    manifest: dict[str, Any]
    task: Task
    id: str
    sha256: str = ""  # of manifest.json, and so of everything in the bundle

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def demo(self) -> bool:
        """Weights trained on synthetic data, which must be said wherever a result is shown."""
        return bool(self.manifest.get("demo", False))

    @property
    def networks(self) -> dict[str, dict[str, Any]]:
        """Network name (a modality, or `fusion`) -> {"onnx": file, "precision": ..., "inputs": ..., "outputs": ...}."""
        return dict(self.manifest["networks"])

    @property
    def temperature(self) -> float:
        """The divisor of the pain logits before the softmax; 1 if probabilities were not calibrated."""
        return float(self.manifest.get("calibration", {}).get("temperature", 1.0))

    @property
    def has_novelty(self) -> bool:
        """Whether the bundle says what its training people's clips look like."""
        return "novelty" in self.manifest

    def novelty(self) -> dict[str, Novelty]:
        """Modality -> density of its features; empty where the bundle has none. Raises BundleError for a bad file."""
        if not self.has_novelty:
            return {}
        name = self.manifest["novelty"]["file"]
        try:
            return read_novelty(self.read(name), self.task)
        except ValueError as error:
            raise BundleError(f"{self.path / name} cannot be used: {error}; export the bundle again") from None

    @property
    def uncertainty(self) -> Uncertainty | None:
        """How far its results lie from the truth for people who were not trained on; None where that is not known."""
        entry = self.manifest.get("uncertainty")
        return Uncertainty.from_manifest(entry) if entry else None

    @property
    def baseline(self) -> tuple[str, ...]:
        """The modalities whose clips the weights compare with the person's rest; empty where they take none."""
        entry = self.manifest.get("baseline")
        return tuple(entry["modalities"]) if entry else ()

    @property
    def baseline_seconds(self) -> float:
        """The rest (s) that the weights were trained with; 0 where they take none."""
        entry = self.manifest.get("baseline")
        return float(entry["seconds"]) if entry else 0.0

    @property
    def personal(self) -> Personal | None:
        """One person's change of the pain output; None in a bundle for everybody."""
        entry = self.manifest.get("personal") if OUTPUT in self.task.outputs else None
        return Personal.from_manifest(entry["parameters"]) if entry else None

    @property
    def subject(self) -> str:
        """The code of the person that it is personalised to; empty in a bundle for everybody."""
        return str(self.manifest.get("personal", {}).get("subject", ""))

    @property
    def files(self) -> dict[str, Stored]:
        """Every file by its name in the manifest, to copy into another bundle."""
        return {name: Stored(self.path / name, digest) for name, digest in self.manifest["files"].items()}

    def read(self, name: str) -> bytes:
        """A file's verified content. Raises BundleError for a name that is not listed, or altered content."""
        if name not in self.manifest["files"]:
            raise BundleError(f"bundle {self.path} lists no file '{name}'; rebuild it with `jmt-edge build`")
        return self.files[name].read()

    def graph(self, name: str) -> bytes:
        """`read` of an ONNX graph. Raises BundleError for another kind of file, or weights outside the file."""
        data = self.read(name)
        try:
            external = has_external_data(data)
        except ValueError as error:
            raise BundleError(
                f"{self.path / name} is not a readable ONNX graph ({error}); export the bundle again"
            ) from None
        if external:
            raise _external(self.path / name)
        return data

    def exported_graph(self, network: str) -> bytes:
        """The float32 ONNX graph of a network. Raises BundleError where the bundle has none."""
        file = self.networks.get(network, {}).get("onnx")
        if file is None:
            raise BundleError(f"bundle {self.path} has no ONNX graph of '{network}'; export it again")
        return self.graph(file)


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle. Raises BundleError, in one sentence, for anything wrong with it.

    `path` itself may be a link; nothing inside may be one.
    """
    root = Path(path)
    manifest_path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(f"no bundle at {root}; give a folder NAME.jmt written by `jmt-edge train` or `build`")
    if not os.path.lexists(manifest_path):
        raise BundleError(f"{root} has no {MANIFEST}, so it is not a bundle; give the folder NAME.jmt itself")
    raw = read_small(manifest_path, BUNDLE)
    _check_checksum(root, raw)
    try:
        manifest = read_manifest(raw)
    except ValueError as error:
        raise BundleError(f"{manifest_path} cannot be used: {error}; rebuild the bundle") from None
    try:
        task = Task.from_dict(manifest["task"])
    except ConfigError as error:
        raise BundleError(f"{manifest_path}: {error}") from None
    digest = hashlib.sha256(raw).hexdigest()
    bundle = Bundle(root, manifest, task, f"{manifest['name']}@{digest[:8]}", digest)
    _verify_files(bundle)
    return bundle


def cpu_graph(bundle: Bundle, network: str, runtime: str = "onnxruntime") -> tuple[str, str]:
    """(name of the ONNX file, precision) of a network for a CPU: what `build --builder onnxruntime` chose for `runtime`
    (onnxruntime or openvino), else for onnxruntime, else the export's.

    Raises BundleError where the bundle has no such network or no graph of it.
    """
    engines = bundle.manifest.get("engines", {})
    chosen = (engines.get(runtime) or engines.get("onnxruntime") or {}).get("networks", {})
    entry = chosen.get(network) or bundle.networks.get(network)
    if entry is None:
        raise BundleError(f"bundle {bundle.path} has no network '{network}'; export it again")
    if "onnx" not in entry:
        raise BundleError(f"bundle {bundle.path} has no ONNX graph of '{network}'; export it again")
    return str(entry["onnx"]), str(entry.get("precision", "fp32"))


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes | Path | Stored],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle and load it back. `files` maps names inside the bundle to contents, to files to copy, or to files
    of another bundle, which are compared with their hashes on the way.

    The folder appears complete or not at all. Raises BundleError where `path` exists and `overwrite` is false, where a
    file of another bundle was altered, and where `load_bundle` would not accept the manifest.
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
            if isinstance(content, Stored):
                with target.open("wb") as out:
                    content.check(out.write)
            elif isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)
            digests[name] = content.sha256 if isinstance(content, Stored) else sha256_file(target)
        whole = {"schema": SCHEMA, "intended_use": INTENDED_USE, "provenance": {}, **manifest, "files": digests}
        raw = (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()
        try:
            check_manifest(json.loads(raw))  # as it will be read, with lists for tuples
        except ValueError as error:
            raise BundleError(f"{root} cannot be written: {error}") from None
        (partial / MANIFEST).write_bytes(raw)
        (partial / CHECKSUM).write_bytes(checksum(raw, MANIFEST))
        if root.exists():
            shutil.rmtree(root)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return load_bundle(root)


def _check_checksum(root: Path, manifest: bytes) -> None:
    path = root / CHECKSUM
    if not os.path.lexists(path):
        raise BundleError(
            f"{root} has no {CHECKSUM}, so its manifest cannot be verified; copy the whole bundle again, or run "
            f"`sha256sum {MANIFEST} > {CHECKSUM}` in a bundle written by an earlier version"
        )
    if read_small(path, BUNDLE) != checksum(manifest, MANIFEST):
        raise BundleError(
            f"bundle file {root / MANIFEST} was altered (its sha256 is not that of {CHECKSUM}); do not use it, copy "
            "the whole bundle again"
        )


def _verify_files(bundle: Bundle) -> None:
    """The folder holds the files of the manifest with its hashes, and nothing else."""
    root, files = bundle.path, bundle.files
    present = set(walk(root, BUNDLE)) - {MANIFEST, CHECKSUM, SIGNATURE}
    for name in sorted(files.keys() - present):
        raise BundleError(f"bundle {root} lacks its file '{name}'; copy the whole folder again or rebuild it")
    for name in sorted(present - files.keys()):
        raise BundleError(f"bundle {root} holds {printable(Path(name))}, which its manifest does not list; remove it")
    graphs = graph_files(bundle.manifest)
    for name, file in files.items():
        if name not in graphs:
            file.check()
            continue
        data = file.read()
        with suppress(ValueError):  # an unreadable graph is reported by the engine, if it is used
            if has_external_data(data):
                raise _external(file.path)


def _external(path: Path) -> BundleError:
    return BundleError(
        f"{path} has weights in another file, which no hash of the bundle covers; export it with its weights inside"
    )
