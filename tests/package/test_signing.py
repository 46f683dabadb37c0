"""Signatures: any change of any file is refused by name, by verify and by loading; keys and stores are checked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="signatures need the extra 'sign'")
sys.path.insert(0, str(Path(__file__).parents[1] / "live"))

from jmt_edge.cli._signed import kind_of, load_signed
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import BUNDLE, load_bundle
from jmt_edge.errors import BundleError, ConfigError, UserError
from jmt_edge.recording.reader import Recording
from jmt_edge.signing import SIGNATURE, keygen, private_key, public_key, sign, trusted_keys, verify

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key, a trust store, a signed demo bundle and a signed recording of it."""
    root = tmp_path_factory.mktemp("signed")
    public, _ = keygen(root / "key")
    (root / "trusted").mkdir(mode=0o755)
    shutil.copyfile(public, root / "trusted" / "lab.pub")
    shutil.copytree(demo_bundle("pain"), root / "x.jmt")
    command = [sys.executable, "-m", "jmt_edge.cli", "live", "--bundle", str(root / "x.jmt"), "--camera", "none"]
    command += ["--eda", "sim:", "--speed", "max", "--duration", "8", "--output", "none", "--record", str(root / "run")]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("x.jmt", "run"):
        sign(root / name, kind_of(root / name), private_key(root / "key"))
    return root


@pytest.fixture
def trusting(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JMT_EDGE_TRUST", str(made / "trusted"))
    return made


def said_of(folder: Path) -> str:
    try:
        verify(folder, kind_of(folder), trusted_keys())
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["x.jmt", "run"])
def test_any_change_of_any_file_is_refused_by_name(trusting: Path, tmp_path: Path, name: str) -> None:
    """Exhaustive over files and kinds of change, sampled over bytes."""
    folder = tmp_path / name
    shutil.copytree(trusting / name, folder)
    rng = np.random.default_rng(0)
    tried = 0
    for file in sorted(folder.iterdir()):
        good = file.read_bytes()
        changed = [good + b"\n", good + b"x"]
        if good:
            changed += [good[:-1], good[: len(good) // 2], b""]
            places = {0, len(good) - 1, *rng.integers(0, len(good), 24).tolist()}
            if file.name == SIGNATURE:
                places |= set(range(len(good)))
            for place in places:
                bad = bytearray(good)
                bad[place] ^= int(rng.integers(1, 256))
                changed.append(bytes(bad))
        for bad in changed:
            file.write_bytes(bad)
            said = said_of(folder)
            assert "\n" not in said and ";" in said and said.isprintable()
            assert file.name in said or file.name == SIGNATURE, (file.name, said)
            tried += 1
        file.unlink()
        said = said_of(folder)
        assert file.name in said or (file.name == SIGNATURE and "not signed" in said), said
        (tmp_path / "elsewhere").write_bytes(good)
        file.symlink_to(tmp_path / "elsewhere")
        assert file.name in said_of(folder) and "link" in said_of(folder)
        file.unlink()
        os.mkfifo(file)
        assert file.name in said_of(folder)
        file.unlink()
        file.write_bytes(good)
    for added in ("new.bin", ".hidden", "a/b/c.onnx", SIGNATURE.upper()):
        (folder / added).parent.mkdir(parents=True, exist_ok=True)
        (folder / added).write_bytes(b"")
        assert added in said_of(folder)
        (folder / added).unlink()
    assert said_of(folder) == ""
    assert tried > 800


def test_loading_refuses_what_verify_refuses(trusting: Path, tmp_path: Path) -> None:
    """Without a signature by the plain hashes, with --require-signed by both."""
    folder = tmp_path / "x.jmt"
    shutil.copytree(trusting / "x.jmt", folder)
    assert load_signed(folder).id == load_bundle(folder).id
    for file in sorted(folder.iterdir()):
        good = file.read_bytes()
        file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(BundleError):
            load_signed(folder)
        if file.name != SIGNATURE:
            with pytest.raises(BundleError, match="altered"):
                load_bundle(folder)
        file.write_bytes(good)
    # somebody who knows the format: new weights with new hashes, the old signature
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["name"] = "better"
    raw = json.dumps(manifest).encode()
    from jmt_edge.plain_files import checksum

    (folder / "manifest.json").write_bytes(raw)
    (folder / "manifest.sha256").write_bytes(checksum(raw, "manifest.json"))
    load_bundle(folder)
    with pytest.raises(BundleError, match=r"not what was signed: 'manifest.json' was altered"):
        load_signed(folder)


def test_a_bundle_that_changes_between_check_and_load(
    trusting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded is what was signed, even where the folder is exchanged in between."""
    other = tmp_path / "other.jmt"
    shutil.copytree(demo_bundle("affect"), other)
    import jmt_edge.engine.bundle as module

    load = module.load_bundle
    monkeypatch.setattr(module, "load_bundle", lambda path: load(other))
    with pytest.raises(BundleError, match="changed while it was read"):
        load_signed(trusting / "x.jmt")


def test_a_signature_of_somebody_else_does_not_count(trusting: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x.jmt"
    shutil.copytree(trusting / "x.jmt", folder)
    public, other = keygen(tmp_path / "other")
    sign(folder, BUNDLE, private_key(tmp_path / "other"))
    assert other[:16] in said_of(folder) and "not trusted" in said_of(folder)
    verify(folder, BUNDLE, [public_key(public)])
    # the right key's name over the other's signature
    right = json.loads((trusting / "x.jmt" / SIGNATURE).read_bytes())["key"]
    text = (folder / SIGNATURE).read_text()
    (folder / SIGNATURE).write_text(text.replace(other, right))
    assert "does not hold" in said_of(folder)
    # a recording's signature says nothing of a bundle
    shutil.copyfile(trusting / "run" / SIGNATURE, folder / SIGNATURE)
    assert "not a signature of a bundle" in said_of(folder)


@pytest.mark.parametrize("pair", [("a.bin", "A.bin"), ("é.bin", "e\u0301.bin"), ("K.bin", "\u212a.bin"), ("ﬁ", "fi")])
def test_names_that_a_file_system_takes_for_one_are_not_signed(
    made: Path, tmp_path: Path, pair: tuple[str, str]
) -> None:
    for name in pair:
        (tmp_path / name).write_bytes(b"")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system takes them for one")
    with pytest.raises(BundleError, match="which some file systems take for one"):
        sign(tmp_path, BUNDLE, private_key(made / "key"))


def test_keys_are_checked(made: Path, tmp_path: Path) -> None:
    assert (made / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="never overwritten"):
        keygen(made / "key")
    bad = tmp_path / "key"
    shutil.copyfile(made / "key", bad)
    bad.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        private_key(bad)
    public = tmp_path / "key.pub"
    shutil.copyfile(made / "key.pub", public)
    public.chmod(0o666)
    with pytest.raises(ConfigError, match="can be changed by others"):
        public_key(public)
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    pem, form = s.Encoding.PEM, s.PrivateFormat.PKCS8
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, form, s.NoEncryption())
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(pem, form, s.BestAvailableEncryption(b"secret"))
    for content in (
        b"",
        b"\xff" * 99,
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        curve,
        locked,
    ):
        for read in (private_key, public_key):
            (tmp_path / "odd").write_bytes(content)
            (tmp_path / "odd").chmod(0o600)
            with pytest.raises(ConfigError, match="keygen") as error:
                read(tmp_path / "odd")
            assert "\n" not in str(error.value)
    for place in (tmp_path, tmp_path / "nothing", Path("/dev/null")):
        with pytest.raises(ConfigError, match=r"PEM"):
            private_key(place)


def test_the_trust_store_is_checked(made: Path, tmp_path: Path) -> None:
    store = tmp_path / "trusted"
    with pytest.raises(ConfigError, match="make the folder"):
        trusted_keys(store)
    store.mkdir()
    with pytest.raises(ConfigError, match="has no public key"):
        trusted_keys(store)
    shutil.copyfile(made / "key.pub", store / "lab.pub")
    assert len(trusted_keys(store)) == 1
    store.chmod(0o777)
    with pytest.raises(ConfigError, match="others can add keys"):
        trusted_keys(store)


def test_the_commands(trusting: Path, tmp_path: Path, command_line: Call) -> None:
    for name in ("x.jmt", "run"):
        assert command_line("verify", trusting / name)[0] == 0
        assert command_line("verify", trusting / name, "--key", trusting / "key.pub")[0] == 0
    for folder in (trusting / "trusted", tmp_path / "none"):
        code, _, err = command_line("verify", folder)
        assert code == 2 and "neither a bundle nor a recording" in err
    code, _, err = command_line("sign", trusting / "x.jmt", "--key", trusting / "key.pub")
    assert code == 2 and "chmod 600" in err
    unsigned = demo_bundle("pain")
    assert command_line("verify", unsigned, "--unsigned")[0] == 0
    for command in (
        ("live", "--bundle", unsigned, "--duration", 1), ("bench", unsigned), ("build", unsigned),
        ("calibrate", unsigned), ("replay", trusting / "run"), ("verify", unsigned),
    ):  # fmt: skip
        flag = () if command[0] == "verify" else ("--require-signed",)
        code, _, err = command_line(*command, *flag)
        assert code == 2 and err.count("\n") == 1 and "is not signed" in err, command
    replay = ("replay", trusting / "run", "--bundle", trusting / "x.jmt", "--require-signed", "--output", "none")
    code, _, err = command_line(*replay, "--check")
    assert code == 0, err
    altered = tmp_path / "run"
    shutil.copytree(trusting / "run", altered)
    text = (altered / "eda.csv").read_text()
    (altered / "eda.csv").write_text(text[:-3] + text[-2:])
    for line in (("replay", altered, "--bundle", trusting / "x.jmt"), ("export", altered, "--to", "csv")):
        code, _, err = command_line(*line, "--require-signed")
        assert code == 2 and "'eda.csv' was altered" in err
    code, _, err = command_line("sign", altered, "--key", trusting / "key")
    assert code == 2 and "eda.csv: line" in err and Recording(altered).results()
