"""What `sign`, `verify` and --require-signed share: bundles and recordings, told apart and checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BundleError, ConfigError, SourceError
from ..plain_files import Kind, printable

if TYPE_CHECKING:
    from ..engine.bundle import Bundle
    from ..recording.reader import Recording

signed_option = click.option(
    "--require-signed", is_flag=True, help="Refuse what nobody in the trust store has signed (jmt-edge verify)."
)


def kind_of(folder: Path) -> Kind:
    """Bundle or recording. Raises ConfigError for a folder that is neither."""
    from ..engine.bundle import BUNDLE
    from ..recording.chain import RECORDING

    if not os.path.lexists(folder / "manifest.json"):
        raise ConfigError(f"{printable(folder)} is neither a bundle nor a recording (it has no manifest.json)")
    recorded = any(os.path.lexists(folder / name) for name in ("timeline.jsonl", "results.jsonl", "eda.csv"))
    return RECORDING if recorded else BUNDLE


def check_folder(folder: Path) -> Kind:
    """Compare every file with its hash, without a signature. Raises BundleError or SourceError, naming the file."""
    kind = kind_of(folder)
    if kind.noun == "bundle":
        from ..engine.bundle import load_bundle

        load_bundle(folder)
    else:
        from ..recording.reader import Recording

        check_recording(Recording(folder))
    return kind


def check_recording(recording: Recording) -> None:
    """Raises SourceError where the recording is not sealed, or not what was written."""
    seal, name = recording.seal, printable(recording.folder)
    if not seal.chained:
        raise SourceError(f"recording {name} is unsealed: {seal.note}; record with this version to have them")
    for fault in seal.faults():
        raise SourceError(f"recording {name} was altered: {fault}; do not use it, copy the whole recording again")
    why = "" if seal.sealed else seal.note
    if seal.closed and not seal.sealed:
        why = f"writing it failed ({printable(str((recording.manifest['closed'] or {}).get('problem')))})"
    if why:
        raise SourceError(
            f"recording {name} is unsealed: {why}; what is there is as it was written, and replay and export read it"
        )


def load_signed(folder: Path) -> Bundle:
    """`load_bundle` of a bundle that somebody in the trust store signed, the loaded files being those signed.

    Raises BundleError, and ConfigError for a trust store that cannot be used.
    """
    from ..engine.bundle import BUNDLE, load_bundle
    from ..signing import trusted_keys, verify

    bundle = load_bundle(folder)
    table, _ = verify(folder, BUNDLE, trusted_keys())
    loaded: dict[str, Any] = {name: file.sha256 for name, file in bundle.files.items()}
    signed = {name: digest for name, (_, digest) in table.items()}
    if signed.pop("manifest.json", "") != bundle.sha256 or not loaded.items() <= signed.items():
        raise BundleError(f"bundle {printable(folder)} changed while it was read; copy it again")
    return bundle


def check_signed_recording(recording: Recording) -> None:
    """Raises SourceError where nobody in the trust store signed it, or it is not what was signed."""
    from ..recording.chain import RECORDING
    from ..signing import trusted_keys, verify

    verify(recording.folder, RECORDING, trusted_keys())
    check_recording(recording)
