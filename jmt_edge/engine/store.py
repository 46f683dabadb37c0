"""A unit's bundles: added whole or not at all, one of them in use, the one before it kept.

    STORE/NAME@HASH.jmt/        each bundle that was added, under its id
    STORE/state -> .states/N    a folder of two links: `current` and `previous`
    STORE/current -> state/current

Renaming one link, `state`, changes both at once: a unit that loses its power in between has the old pair or the new.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import BundleError, ConfigError
from ..plain_files import printable
from .bundle import Bundle, load_bundle

VARIABLE = "JMT_EDGE_BUNDLES"
CURRENT, PREVIOUS, STATE, STATES = "current", "previous", "state", ".states"
PARTIAL = ".partial-"

Load = Callable[[Path], Bundle]


def default_store() -> Path:
    """`$JMT_EDGE_BUNDLES`, else the user's data folder."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "jmt-edge" / "bundles"


class Store:
    """The folder of a unit's bundles. load: how a bundle is checked before it is added or used, such as `load_bundle`
    or one that wants a signature. Every method may raise BundleError, and ConfigError where files cannot be written."""

    def __init__(self, folder: Path, load: Load = load_bundle) -> None:
        self.folder, self._load = folder, load

    def names(self) -> list[str]:
        """The ids of all bundles, `NAME@HASH`."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name.removesuffix(".jmt") for p in self.folder.glob("*@*.jmt") if not p.name.startswith("."))

    @property
    def current(self) -> str | None:
        return self._linked(CURRENT)

    @property
    def previous(self) -> str | None:
        return self._linked(PREVIOUS)

    def current_path(self) -> Path:
        """The bundle in use, by its own name: a run that has begun with it keeps it."""
        name = self.current
        if name is None:
            raise BundleError(f"no bundle of {printable(self.folder)} is in use; choose one with `jmt-edge bundle use`")
        return self._path(name)

    def add(self, source: Path) -> tuple[str, bool]:
        """Check a bundle and copy it: (its id, whether it is new here)."""
        bundle = self._load(source)
        with self._locked():
            for left in self.folder.glob(f"{PARTIAL}*"):  # of a unit that lost its power here
                shutil.rmtree(left)
            target = self._path(bundle.id)
            if target.exists():
                if self._load(target).sha256 != bundle.sha256:  # the id has only eight digits of it
                    raise BundleError(
                        f"{printable(source)} is another bundle than the {bundle.id} of {printable(self.folder)}; give "
                        "one of them another name"
                    )
                return bundle.id, False
            partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))
            try:
                _copy(bundle, partial)
                copy = self._load(partial)  # signed as its source was
                if copy.sha256 != bundle.sha256:
                    raise BundleError(f"bundle {printable(source)} changed while it was copied; add it again")
                partial.rename(target)
                _to_disk(self.folder)
            finally:
                if partial.exists():
                    shutil.rmtree(partial)
        return bundle.id, True

    def use(self, wanted: str) -> str:
        """Check a bundle of the store and make it the current one. wanted: its id, or a beginning that only one has."""
        with self._locked():
            name = self._find(wanted)
            self._load(self._path(name))
            if name != self.current:
                self._switch(name, self.current)
        return name

    def rollback(self) -> str:
        """Use the bundle before the current one again; the two change places."""
        with self._locked():
            name = self.previous
            if name is None:
                raise BundleError("no bundle was in use before the current one, so there is nothing to go back to")
            self._load(self._path(name))
            self._switch(name, self.current)
        return name

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jmt"

    def _linked(self, which: str) -> str | None:
        with suppress(OSError):
            name = Path(os.readlink(self.folder / STATE / which)).name.removesuffix(".jmt")
            return name if self._path(name).is_dir() else None
        return None

    def _find(self, wanted: str) -> str:
        names = self.names()
        found = [name for name in names if name == wanted] or [name for name in names if name.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(names) or "none"
        what = f"several bundles begin with '{wanted}'" if found else f"no bundle '{wanted}' was added"
        raise BundleError(f"{printable(what)}; there are: {listed}")

    def _switch(self, current: str, previous: str | None) -> None:
        states = self.folder / STATES
        states.mkdir(exist_ok=True)
        states.chmod(0o755)
        new = Path(tempfile.mkdtemp(dir=states))
        new.chmod(0o755)
        for which, name in ((CURRENT, current), (PREVIOUS, previous)):
            if name is not None:
                (new / which).symlink_to(f"../../{name}.jmt")
        _to_disk(new)
        if not os.path.lexists(self.folder / CURRENT):
            (self.folder / CURRENT).symlink_to(f"{STATE}/{CURRENT}")
        link = self.folder / f".{STATE}"
        link.unlink(missing_ok=True)
        link.symlink_to(f"{STATES}/{new.name}")
        link.rename(self.folder / STATE)
        _to_disk(self.folder)
        for old in states.iterdir():
            if old.name != new.name:
                shutil.rmtree(old)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time. Raises ConfigError where the store cannot be written."""
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True)
                self.folder.chmod(0o755)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise ConfigError(
                f"the bundles in {printable(self.folder)} cannot be changed ({error.strerror}); make room, or give "
                "another folder with --store"
            ) from None


def _copy(bundle: Bundle, folder: Path) -> None:
    """Every file of a bundle, as verified bytes, on the disk before this returns."""
    extra = [name for name in ("manifest.json", "manifest.sha256", "signature.json") if (bundle.path / name).is_file()]
    for name in (*bundle.files, *extra):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(bundle.read(name) if name in bundle.files else (bundle.path / name).read_bytes())
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # a service of another user reads them, whatever this shell's umask is
            os.fsync(file.fileno())
    for place in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        place.chmod(0o755)
        _to_disk(place)


def _to_disk(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
