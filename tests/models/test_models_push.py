"""`jmt-edge push` over HTTP to a local stand-in of the Hub: what arrives, in one commit, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

DEMO = Path(__file__).parents[2] / "jmt_edge" / "engine" / "bundles" / "pain-demo.jmt"
LARGE = (".onnx", ".safetensors")
TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    """What the Hub's HTTP interface needs for a commit: repositories, Git LFS, commits."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, bool] = {}  # name -> private
        self.branches: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.commits: list[dict[str, bytes]] = []
        self.messages: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def _answer(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer({"error": "not found"}, 404)

    def do_PUT(self) -> None:  # an LFS object
        self.server.blobs[self.path.rsplit("/", 1)[1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/api/validate-yaml":  # of the model card
            assert json.loads(body)["content"].startswith("---\n")
            return self._answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.server.repos[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return self._answer({"url": f"{self.server.url}/{name}"})
        if "/branch/" in self.path:
            self.server.branches.append(self.path.rsplit("/", 1)[1])
            return self._answer({}, 201)
        if "/preupload/" in self.path:
            files = [f["path"] for f in json.loads(body)["files"]]
            return self._answer({"files": [
                {"path": f, "uploadMode": "lfs" if f.endswith(LARGE) else "regular", "shouldIgnore": False}
                for f in files
            ]})  # fmt: skip
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return self._answer({"transfer": "basic", "objects": [
                {**o, "actions": {"upload": {"href": f"{self.server.url}/blob/{o['oid']}"}}} for o in objects
            ]})  # fmt: skip
        if "/commit/" in self.path:
            return self._commit([json.loads(line) for line in body.splitlines()])
        self._answer({"error": "not found"}, 404)

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        self.server.commits.append(files)
        oid = "a" * 40
        self._answer({"commitUrl": f"{self.server.url}/me/pain/commit/{oid}", "commitOid": oid, "success": True})


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def push(endpoint: str, home: Path, *arguments: str | Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    if token:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "jmt_edge", "push", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_bundle_arrives_whole_in_one_private_commit(hub: Hub, tmp_path: Path) -> None:
    done = push(hub.url, tmp_path, DEMO, "me/pain", "--revision", "v1")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/me/pain/commit/" in done.stdout and "ids of 36 subjects" in done.stdout
    assert hub.repos == {"me/pain": True} and hub.branches == ["v1"]
    (files,) = hub.commits
    assert hub.messages == ["pain-demo, written by jmt-edge"]
    sent = {f.name: f.read_bytes() for f in DEMO.iterdir()}
    assert {name: hashlib.sha256(files[name]).hexdigest() for name in sent} == {
        name: hashlib.sha256(content).hexdigest() for name, content in sent.items()
    }
    # the card of a bundle that has none is made of its manifest, without the ids of its subjects
    card = files["README.md"].decode()
    assert set(files) == {*sent, "README.md"}
    assert card.startswith("---\nlibrary_name: ") and "not for clinical use" in card
    manifest = json.loads(sent["manifest.json"])
    assert not any(s in card for s in manifest["provenance"]["split"]["test_subjects"])


def test_what_cannot_be_pushed_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jmt"
    shutil.copytree(DEMO, broken)
    (broken / "eda.onnx").write_bytes(b"other")
    for arguments, token, endpoint, says in (
        ((DEMO, "me/pain"), "hf_wrong", hub.url, "the Hub answered 401"),
        ((broken, "me/pain"), TOKEN, hub.url, "eda.onnx"),
        ((DEMO, "pain"), TOKEN, hub.url, "write OWNER/NAME"),
        ((DEMO, "me/--x"), TOKEN, hub.url, "cannot name a repository"),
        ((DEMO, "me/pain"), TOKEN, "http://127.0.0.1:9", "cannot be reached"),
    ):
        done = push(endpoint, tmp_path / "home", *arguments, token=token)
        assert done.returncode == 2, (says, done.stderr)
        assert done.stderr.count("\n") == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not hub.commits


def test_without_the_package_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from jmt_edge.compiler.hub import push as upload
    from jmt_edge.errors import InstallError

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InstallError, match=r"pip install 'jmt-edge\[hub\]'"):
        upload(DEMO, "me/pain")
