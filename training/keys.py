"""Keys: what stored state depends on, so that none is resumed or read under other conditions.

In a shared cache, files are named by a key's digest, so state under another key is never found. A folder that the user
named (`--out`) holds the key itself (`claim`): a command with another key is refused, and told the first difference.

Clips are keyed by the size and times of their files, which are quick to read; everything made from clips is keyed by
their content. After a data set is copied or touched, its clips are cut again, but nothing is trained again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..clips.plan import HOP, plan_clips
from ..errors import ConfigError, DataError
from ..tasks import Modality
from .data import WindowTable
from .locks import lock

if TYPE_CHECKING:
    from torch import nn

# Modules and whole packages below `jmt_edge`. From files to clips:
CLIP_CODE = (
    "tasks", "result", "opencv", "preprocessing", "media", "capture", "clips", "training.clips", "training.faults",
    "training.frame_features", "training.open_data", "training.sources", "training.streams",
)  # fmt: skip
# and from clips to scores:
CODE = (*CLIP_CODE, "models", "metrics", "compiler.export", "training")
_SHOWN = 20  # characters; of a longer value, a digest or a path, an error names the part only
_CHUNK = 1 << 24  # bytes of an array hashed at a time


@dataclass(frozen=True)
class Key:
    """All that some state depends on: part -> plain value or digest, in the order in which differences are named."""

    parts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """20 hexadecimal digits, the same for equal parts in any order."""
        return digest(self.parts)[:20]

    def also(self, **parts: Any) -> Key:
        """This key with further or other parts."""
        return Key({**self.parts, **parts})

    def difference(self, kept: Mapping[str, Any]) -> str:
        """The first part that differs from `kept` ("seed = 0, not 1", "different labels"), "" where none does."""
        return _difference(json.loads(json.dumps(self.parts)), kept, "")


def _difference(mine: Any, kept: Any, where: str) -> str:
    if mine == kept:
        return ""
    if isinstance(mine, Mapping) and isinstance(kept, Mapping):
        name = next(k for k in (*mine, *kept) if k not in mine or k not in kept or mine[k] != kept[k])
        return _difference(mine.get(name), kept.get(name), f"{where}.{name}" if where else str(name))
    if _short(mine) and _short(kept):
        return f"{where} = {kept}, not {mine}"
    return f"different {where}"


def _short(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, str) and len(value) < _SHOWN)


def claim(file: Path, key: Key, what: str, state: Sequence[str]) -> None:
    """Record in `file` that its folder holds `what` under this key.

    state: patterns of files that a later command would trust. Raises ConfigError where the folder has any of them under
    another key or without a key; a record without any of them is replaced.
    """
    with lock(file.with_suffix(".lock")):
        if _held(file, key, what, state):
            return
        write(file, json.dumps(key.parts, indent=1) + "\n")


def foresee(file: Path, parts: Mapping[str, Any], what: str, state: Sequence[str]) -> None:
    """Raises the ConfigError of a later `claim` whose key has these `parts`, as far as they show it already."""
    kept = _record(file)
    if isinstance(kept, dict):
        _held(file, Key({name: parts.get(name, value) for name, value in kept.items()}), what, state)


def _held(file: Path, key: Key, what: str, state: Sequence[str]) -> bool:
    """Whether `file` says that its folder is of this key; raises ConfigError as `claim`."""
    folder, kept = file.parent, _record(file)
    different = key.difference(kept) if isinstance(kept, dict) else "no record"
    if not different:
        return True
    if found := next((found for pattern in state for found in folder.glob(pattern)), None):
        remedy = f"choose another --out or remove {folder}"
        if isinstance(kept, dict):
            raise ConfigError(f"{folder} holds {what} made with {different}; {remedy}")
        name = found.relative_to(folder)
        raise ConfigError(f"{folder} holds {what} ({name}) without a record of what it was made from; {remedy}")
    return False


def _record(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def write(path: Path, text: str) -> None:
    """Written as a whole: an interrupted run leaves no partial file that a later run would trust."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


# ---- digests -------------------------------------------------------------------------------------------------


def digest(*things: Any) -> str:
    """SHA-256 (hexadecimal) of arrays, by type, shape and bytes, and of plain values, as JSON with sorted keys."""
    found = hashlib.sha256()
    for thing in things:
        if isinstance(thing, np.ndarray):
            found.update(f"{thing.dtype.str}{thing.shape}".encode())
            rows = max(1, _CHUNK // max(1, thing.nbytes // max(1, len(thing)))) if thing.ndim else 1
            for i in range(0, len(thing) if thing.ndim else 1, rows):
                found.update((thing[i : i + rows] if thing.ndim else thing).tobytes())
        else:
            found.update(json.dumps(thing, sort_keys=True).encode())
        found.update(b"\0")
    return found.hexdigest()


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of a network's state: names, shapes and values."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode() + str(tuple(value.shape)).encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def source_of_weights(source: str) -> str:
    """`torchvision` (whose files carry their hash), else the digest of the file. DataError where it cannot be read."""
    if source == "torchvision":
        return source
    try:
        with open(source, "rb") as file:
            found = hashlib.sha256()
            while block := file.read(_CHUNK):
                found.update(block)
    except OSError as error:
        raise DataError(
            f"no checkpoint at {source} ({error.strerror}); give a .pt, .pth or .safetensors file"
        ) from None
    return found.hexdigest()


def code(names: tuple[str, ...] = CODE) -> str:
    """SHA-256 of the files of these modules and packages of `jmt_edge`: sources, and models beside them."""
    return _code(names)


@lru_cache
def _code(names: tuple[str, ...]) -> str:
    found = hashlib.sha256()
    for name in names:
        for place, file in _files(name):
            found.update(f"{name} {place}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _files(name: str) -> Iterator[tuple[str, Path]]:
    """(path within the package, file) of a module or package."""
    spec = find_spec(f"{__name__.split('.')[0]}.{name}")
    assert spec is not None, f"no module {name}"  # a package that moved must not drop out of the keys
    if spec.submodule_search_locations is None:
        yield "", Path(str(spec.origin))
        return
    folder = Path(next(iter(spec.submodule_search_locations)))
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            yield file.relative_to(folder).as_posix(), file


# ---- clips and what is cut from them -------------------------------------------------------------------------


def clip_key(windows: WindowTable, m: Modality, fault: str = "") -> str:
    """Of a modality's clips: fault, geometry, code, and the files by path, size and times of change."""
    stamps: dict[str, Any] = {}
    jobs: dict[int, list[float]] = {}
    for number, end in windows.clips[m.name]:
        jobs.setdefault(number, []).append(end)
    lines = []
    for number, ends in jobs.items():
        trial = windows.trials[number]
        path = trial.files[m.name]
        if str(path) not in stamps:
            stamps[str(path)] = _stamp(path)
        # Affwild2's frames are found by the labels' times, which come from the video
        times = digest(trial.labels.times)
        lines.append([number, trial.id, trial.kind, str(path), stamps[str(path)], times, ends])
    plan = plan_clips(windows.task, HOP)[m.name]
    geometry = plan.m.geometry() | {"new": plan.new}
    if m.name == "eda":
        geometry.update(mean=(), std=())  # stored in µS
    return digest(geometry, code(CLIP_CODE), lines, *([fault] if fault else []))[:20]


def _stamp(path: Path) -> Any:
    if str(path).startswith("sim:"):
        return 0
    try:
        if not path.is_dir():
            return _change(path.stat())
        # a folder's own times do not move when one of its frames is written again
        with os.scandir(path) as entries:
            return digest(sorted([entry.name, *_change(entry.stat())] for entry in entries))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); restore it or drop the trial") from None


def _change(stat: os.stat_result) -> list[int]:
    # the inode's time too, because copying tools and archives set the other to any value
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def clip_content(folder: Path, data: NDArray[Any], present: NDArray[Any], track: NDArray[Any], *, fresh: bool) -> str:
    """Digest of a complete clip cache, stored in its folder. fresh: clips were added, so it is computed again."""
    file = folder / "content.txt"
    if fresh or not file.is_file():
        write(file, digest(data, present, track))
    return file.read_text()


def data_parts(windows: WindowTable) -> dict[str, Any]:
    """The parts of a key that come from a data set: labels, trials with their subjects, windows."""
    trials = [[r.id, r.subject, r.kind, r.part, r.duration, list(r.ends)] for r in windows.trials]
    labels: list[Any] = []
    for r in windows.trials:
        labels += [r.labels.times, *(x for o in sorted(r.labels.values) for x in (o, r.labels.values[o]))]
    return {
        "labels": digest(*labels, *(x for o in sorted(windows.labels) for x in (o, windows.labels[o]))),
        "recordings": digest(trials),
        "windows": digest(windows.trial, windows.end, *(x for m in sorted(windows.rows) for x in (m, windows.rows[m]))),
    }
