"""Signatures of folders: Ed25519 (RFC 8032) over a list of every file's name, size and sha256.

`signature.json` lies in the folder that it signs. It holds the list, so that a bad file can be named, the sha256 of the
signer's public key, and the signature. It is compared byte for byte with what `sign` writes: nothing in it can change.
Whose signatures count is decided by the public keys in the user's trust store, never by the folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError
from .plain_files import Kind, printable, read_small, size_and_sha256, walk

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "signature.json"
FORMAT, VERSION = "jmt-edge signature", 1
Table = dict[str, tuple[int, str]]  # name -> bytes, sha256
_PEM_BYTES = 1 << 14


@dataclass(frozen=True)
class Trusted:
    """A public key and where it was read."""

    key: Ed25519PublicKey
    path: Path

    @property
    def id(self) -> str:
        return key_id(self.key)


def keygen(path: Path) -> tuple[Path, str]:
    """Write a new private key to `path` (mode 0600) and its public key to `path`.pub: (that path, the key's id).

    Raises ConfigError where either exists or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    shared = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    for target in (path, public):
        if os.path.lexists(target):
            raise ConfigError(f"{printable(target)} exists, and keys are never overwritten; choose another name")
    try:
        for target, content, mode in ((path, private, 0o600), (public, shared, 0o644)):
            with os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(f"{printable(target)} cannot be written ({error.strerror}); choose another folder") from None
    return public, key_id(key.public_key())


def key_id(key: Ed25519PublicKey) -> str:
    """The sha256 of the 32 bytes of a public key, in hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def private_key(path: Path) -> Ed25519PrivateKey:
    """Raises ConfigError for a file that is not an Ed25519 private key, or that others than its owner may read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content, mode = _pem(path)
    if mode & 0o077:
        raise ConfigError(f"key {printable(path)} can be read by others (mode {mode:04o}); run `chmod 600 {path}`")
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise ConfigError(
            f"key {printable(path)} is encrypted, which is not supported; make another with `jmt-edge keygen`"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _not_a_key(path, "private") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(path, "private")
    return key


def public_key(path: Path) -> Trusted:
    """Raises ConfigError for a file that is not an Ed25519 public key, or that others than its owner may change."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content, mode = _pem(path)
    if mode & 0o022:
        raise ConfigError(f"key {printable(path)} can be changed by others (mode {mode:04o}); run `chmod go-w {path}`")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise _not_a_key(path, "public") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _not_a_key(path, "public")
    return Trusted(key, path)


def trust_store() -> Path:
    """`$JMT_EDGE_TRUST`, or `~/.config/jmt-edge/trusted`: a folder of public keys."""
    if folder := os.environ.get("JMT_EDGE_TRUST"):
        return Path(folder)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "jmt-edge" / "trusted"


def trusted_keys(store: Path | None = None) -> list[Trusted]:
    """The keys (`*.pub`, `*.pem`) of the trust store. Raises ConfigError where it has none, or others may change it."""
    store = store or trust_store()
    try:
        mode = store.stat().st_mode
        found = sorted(p for p in store.iterdir() if p.suffix in (".pub", ".pem") and not p.name.startswith("."))
    except OSError as error:
        raise ConfigError(
            f"the trust store {printable(store)} cannot be read ({error.strerror}); make the folder and put the public "
            "keys of those you trust into it, or give one with --key"
        ) from None
    if mode & 0o022:
        raise ConfigError(f"others can add keys to the trust store {printable(store)}; run `chmod go-w {store}`")
    if not found:
        raise ConfigError(
            f"the trust store {printable(store)} has no public key (*.pub, *.pem); copy the keys of those you trust "
            "into it, or give one with --key"
        )
    return [public_key(path) for path in found]


def sign(folder: Path, kind: Kind, key: Ed25519PrivateKey) -> Table:
    """Sign the files that are in the folder now: what was signed. Writes `signature.json`, in place of another one.

    Check first that they are what they should be. Raises `kind.error` for links, odd files and names that are alike,
    ConfigError where the signature cannot be written.
    """
    table = _table(folder, kind)
    body = _body(kind, key_id(key.public_key()), table)
    signature = base64.b64encode(key.sign(_canonical(body))).decode()
    partial = folder / f".{SIGNATURE}"
    try:
        partial.write_bytes(_encoded({**body, "signature": signature}))
        partial.replace(folder / SIGNATURE)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(
            f"{printable(folder / SIGNATURE)} cannot be written ({error.strerror}); sign a copy"
        ) from None
    return table


def verify(folder: Path, kind: Kind, keys: list[Trusted]) -> tuple[Table, Trusted]:
    """The files of a folder, each as it was signed by one of `keys`, and that key.

    Raises `kind.error`, in one sentence, where the folder is not signed, by nobody of them, or not as it was signed.
    """
    body, signature = _read(folder, kind)
    by = {trusted.id: trusted for trusted in keys}.get(body["key"])
    if by is None:
        raise kind.error(
            f"{kind.noun} {printable(folder)} is signed with the key {body['key'][:16]}, which is not trusted; put its "
            f"public key into {printable(trust_store())} if you trust the signer, or do not use it"
        )
    from cryptography.exceptions import InvalidSignature

    try:
        by.key.verify(signature, _canonical(body))
    except InvalidSignature:
        raise kind.error(
            f"{printable(folder / SIGNATURE)} was altered: it does not hold for the key {by.id[:16]}; do not use the "
            f"{kind.noun}, copy it again"
        ) from None
    signed: Table = {name: (size, digest) for name, (size, digest) in body["files"].items()}
    for fault in _faults(folder, kind, signed):
        raise kind.error(
            f"{kind.noun} {printable(folder)} is not what was signed: {fault}; do not use it, copy it again"
        )
    return signed, by


def _faults(folder: Path, kind: Kind, signed: Table) -> Iterator[str]:
    present = set(_names(folder, kind))
    for name in sorted(signed.keys() - present):
        yield f"'{name}' is missing"
    for name in sorted(present - signed.keys()):
        yield f"'{name}' was added"
    for name, (size, digest) in sorted(signed.items()):
        if size_and_sha256(folder / name, kind) != (size, digest):
            yield f"'{name}' was altered"


def _table(folder: Path, kind: Kind) -> Table:
    return {name: size_and_sha256(folder / name, kind) for name in _names(folder, kind)}


def _names(folder: Path, kind: Kind) -> list[str]:
    """All files but the signature. Raises `kind.error` for names that a file system or a reader could mistake."""
    names = sorted(set(walk(folder, kind)) - {SIGNATURE})
    seen: dict[str, str] = {}
    for name in names:
        if not name.isprintable() or len(name) > 1000 or any("\ud800" <= c <= "\udfff" for c in name):
            raise kind.error(f"{kind.noun} {printable(folder)} holds a file with the odd name {name!a}; rename it")
        alike = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())
        other = seen.setdefault(alike, name)
        if other != name:
            raise kind.error(
                f"{kind.noun} {printable(folder)} holds {other!a} and {name!a}, which some file systems take for one; "
                "remove one"
            )
    return names


def _body(kind: Kind, key: str, table: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    files = {name: [size, digest] for name, (size, digest) in sorted(table.items())}
    return {"format": FORMAT, "version": VERSION, "kind": kind.noun, "key": key, "files": files}


def _canonical(body: Mapping[str, Any]) -> bytes:
    """What is signed: JSON with sorted keys, no spaces, and ASCII only."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _encoded(whole: Mapping[str, Any]) -> bytes:
    return json.dumps(whole, indent=1, sort_keys=True).encode() + b"\n"


def _read(folder: Path, kind: Kind) -> tuple[dict[str, Any], bytes]:
    """(what was signed, the signature). Raises `kind.error` for anything but what `sign` writes."""
    path = folder / SIGNATURE
    if not os.path.lexists(path):
        raise kind.error(
            f"{kind.noun} {printable(folder)} is not signed; ask its author for a signed one, or sign it with "
            "`jmt-edge sign` if you trust it"
        )
    raw = read_small(path, kind)
    try:
        whole = json.loads(raw)
        body = {name: whole[name] for name in ("format", "version", "kind", "key", "files")}
        table = {str(name): (size, digest) for name, (size, digest) in body["files"].items()}
        signature = base64.b64decode(whole["signature"], validate=True)
        right = raw == _encoded({**_body(kind, body["key"], table), "signature": whole["signature"]})
        right &= base64.b64encode(signature).decode() == whole["signature"] and type(body["key"]) is str
        right &= all(type(n) is int and type(d) is str for n, d in table.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        right = False
    if not right:
        raise kind.error(
            f"{printable(path)} is not a signature of a {kind.noun} as `jmt-edge sign` writes it; do not use the "
            f"{kind.noun}, copy it again"
        )
    return body, signature


def _pem(path: Path) -> tuple[bytes, int]:
    """(content, mode). Raises ConfigError."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"key {printable(path)} is not a file; give a PEM file")
            return file.read(_PEM_BYTES), stat.S_IMODE(status.st_mode)
    except OSError as error:
        raise ConfigError(f"key {printable(path)} cannot be read ({error.strerror}); give a PEM file") from None


def _not_a_key(path: Path, which: str) -> ConfigError:
    return ConfigError(f"{printable(path)} is not an Ed25519 {which} key in PEM; make one with `jmt-edge keygen`")
