"""Plain files of a folder that others may have written: found and read without following a link or waiting for a pipe.

Bundles and recordings are such folders. What they say in a sentence about a bad file is in `Kind`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

_BLOCK = 1 << 20
_SMALL = 64 << 20


@dataclass(frozen=True)
class Kind:
    """What a folder is called, and the error of its files."""

    noun: str
    error: type[UserError]

    def link(self, path: Path) -> UserError:
        return self.error(
            f"{printable(path)} in a {self.noun} is a link; do not use it, copy the whole {self.noun} again with its "
            "files"
        )

    def not_plain(self, path: Path) -> UserError:
        return self.error(
            f"{printable(path)} in a {self.noun} is not a plain file; do not use it, copy the whole {self.noun} again"
        )


def walk(root: Path, kind: Kind) -> Iterator[str]:
    """Names of all files below `root`, `/` between folders. Raises `kind.error` for a link and for what is neither file
    nor folder.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise kind.error(
                f"{kind.noun} folder {printable(folder)} cannot be read ({error.strerror}); copy it again"
            ) from None
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink():
                raise kind.link(path)
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path.relative_to(root).as_posix()
            else:
                raise kind.not_plain(path)


def blocks(path: Path, kind: Kind, size: int = _BLOCK) -> Iterator[bytes]:
    """A plain file's content; size -1: in one piece. Raises `kind.error` for anything else, and where reading fails."""

    def open_plain(name: str, flags: int) -> int:
        number = os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise kind.not_plain(path)
        return number

    if path.is_symlink():
        raise kind.link(path)
    try:
        with open(path, "rb", buffering=0, opener=open_plain) as file:
            while block := file.read(size):
                yield block
    except OSError as error:
        raise kind.error(
            f"{kind.noun} file {printable(path)} cannot be read ({error.strerror}); copy the whole {kind.noun} again"
        ) from None


def read_small(path: Path, kind: Kind, most: int = _SMALL) -> bytes:
    """A plain file's content of at most `most` bytes. Raises `kind.error` for a larger one too."""
    data = b""
    for block in blocks(path, kind):
        data += block
        if len(data) > most:
            raise kind.error(f"{printable(path)} is larger than {most >> 20} MB, unlike any manifest; do not use it")
    return data


def size_and_sha256(path: Path, kind: Kind) -> tuple[int, str]:
    """Bytes and sha256 of a plain file. Raises `kind.error`."""
    digest, size = hashlib.sha256(), 0
    for block in blocks(path, kind):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def checksum(content: bytes, name: str) -> bytes:
    """What `sha256sum NAME` prints for a file of this content."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


def printable(path: Path | str) -> str:
    """A path that is safe to print: file names can contain terminal control characters."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def visible(text: str) -> str:
    """A text in which invisible characters are U+FFFD: controls, and those that turn the direction of writing."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
