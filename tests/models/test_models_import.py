"""Released checkpoints: parity with an independent `nn.MultiheadAttention` model written from the paper, reports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from jmt_edge.cli import cli
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.errors import DataError
from jmt_edge.models.pretrained import read_checkpoint
from jmt_edge.models.released import import_released
from jmt_edge.tasks import Task, get_task

D = 512


class PaperLayer(nn.Module):
    """Sequence-first encoder layer, as published."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, 1)
        self.feed_forward = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D))
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(D), nn.LayerNorm(D)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm1(x + self.attention(x, x, x)[0])
        return self.layer_norm2(x + self.feed_forward(x))


class PaperEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(PaperLayer())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PaperFusion(nn.Module):
    """The equations of the papers over (S, B, 512); `pain` feeds B x 1 x 512 unturned, as its code does."""

    def __init__(self, head: str, pain: bool) -> None:
        super().__init__()
        self.head, self.pain = head, pain
        self.visual_encoder, self.physiological_encoder = PaperEncoder(), PaperEncoder()
        self.joint_representation_encoder = PaperEncoder()
        self.final_encoder = nn.Linear(4, 4)  # stands for the unused layers
        for name in ("cross_attention_v", "cross_attention_p", "cross_attention_pv"):
            setattr(self, name, nn.MultiheadAttention(D, 1))
        self.out_layer_pv = nn.Linear(2 * D, D)
        if head == "concat":
            self.out_layer1 = nn.Linear(6 * D, 2 * D)
            if pain:
                self.out_layer2 = nn.Linear(2 * D, 2)
        else:
            self.final_visual_encoder = PaperEncoder()
            self.final_self_attention = nn.MultiheadAttention(D, 1)

    def forward(self, v: Tensor, p: Tensor) -> Tensor:
        both = torch.cat([v, p], 2)
        if self.pain:
            j = self.out_layer_pv(torch.norm(both, dim=1, keepdim=True))
        else:
            j = self.out_layer_pv(both)
            v, p, j = (x.permute(1, 0, 2) for x in (v, p, j))
        v, p, j = self.visual_encoder(v), self.physiological_encoder(p), self.joint_representation_encoder(j)

        def ask(name: str, q: Tensor, k: Tensor) -> Tensor:
            turn = (lambda x: x.permute(1, 0, 2)) if self.pain else (lambda x: x)
            return turn(getattr(self, f"cross_attention_{name}")(turn(q), turn(k), turn(k))[0])

        six = [ask("v", v, p), ask("p", p, v), ask("pv", j, v), ask("v", v, j), ask("pv", j, p), ask("p", p, j)]
        if self.head == "concat":
            out = self.out_layer1(torch.cat(six, 2))
            return self.out_layer2(out) if self.pain else out.permute(1, 0, 2)
        s, b = six[0].shape[:2]
        tokens = torch.stack(six).flatten(1, 2)  # (6, S B, 512)
        tokens = self.final_visual_encoder(tokens)
        return self.final_self_attention(tokens, tokens, tokens)[0][-1].unflatten(0, (s, b)).permute(1, 0, 2)


class PaperAffect(nn.Module):
    def __init__(self, head: str) -> None:
        super().__init__()
        self.mm_transformer = PaperFusion(head, pain=False)
        width = D if head == "self_attention" else 2 * D
        for name in ("vregressor", "aregressor"):
            setattr(self, name, nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 1)))

    def forward(self, v: Tensor, p: Tensor) -> dict[str, Tensor]:
        x = self.mm_transformer(v, p)
        return {"valence": self.vregressor(x).squeeze(-1), "arousal": self.aregressor(x).squeeze(-1)}


def close(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def gently(module: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for name, p in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p, std=0.1)
    return module.eval()


@pytest.mark.parametrize("head", ["self_attention", "concat"])
def test_affect_equals_the_published_equations(head: str) -> None:
    paper = gently(PaperAffect(head))
    fusion, report = import_released(paper.state_dict(), get_task("affect"), source="x.pt")
    v, p = torch.randn(2, 16, D), torch.randn(2, 16, D)
    with torch.no_grad():
        expected, found = paper(v, p), fusion({"face": v, "voice": p})
    for name in ("valence", "arousal"):
        close(found[name], expected[name])
    assert {k for k, _ in report.ignored} == {
        "mm_transformer.final_encoder.weight",
        "mm_transformer.final_encoder.bias",
    }
    assert set(report.missing) == {"missing.tokens.face", "missing.tokens.voice"}
    assert len(report.used) + len(report.ignored) == len(paper.state_dict())


def test_pain_equals_its_released_form_at_batch_one_only() -> None:
    """Batch 1 is exact, |[v; p]| included; with two samples the published code mixes them and ours does not."""
    paper = gently(PaperFusion("concat", pain=True))
    fusion, _ = import_released(paper.state_dict(), get_task("pain"), source="x.pt")
    v, p = torch.randn(2, 1, D), torch.randn(2, 1, D)
    with torch.no_grad():
        each = torch.cat([paper(v[i : i + 1], p[i : i + 1]) for i in range(2)])
        together = fusion({"face": v, "eda": p})["pain"]
        close(together, each)
        assert (paper(v, p) - each).abs().max() > 1e-3


def test_wrong_checkpoints_say_why() -> None:
    pain, affect = get_task("pain"), get_task("affect")
    state = PaperFusion("concat", pain=True).state_dict()
    with pytest.raises(DataError, match="not a joint transformer"):
        import_released({"conv1.weight": torch.zeros(1)}, pain, source="x.pt")
    with pytest.raises(DataError, match="no 'vregressor' for valence"):
        import_released(state, affect, source="x.pt")
    with pytest.raises(DataError, match=r"lacks 'cross_attention_v\.in_proj_weight'"):
        import_released(
            {k: v for k, v in state.items() if k != "cross_attention_v.in_proj_weight"}, pain, source="x.pt"
        )
    with pytest.raises(DataError, match="lacks 'final_visual_encoder"):
        import_released({**state, "classifier.weight": torch.zeros(2, D)}, pain, source="x.pt", head="self_attention")
    with pytest.raises(DataError, match="has 512 features"):
        import_released(state, get_task("pain", "demo"), source="x.pt")
    wide = {**state, "out_layer1.weight": torch.zeros(5, 6 * D)}
    with pytest.raises(DataError, match=r"'out_layer1\.weight' has shape \(5, 3072\)"):
        import_released(wide, pain, source="x.pt")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_reading_never_runs_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match=r"save `model\.state_dict\(\)`"):
        read_checkpoint(tmp_path / "evil.pt")
    assert "code ran" not in capsys.readouterr().out
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({}, tmp_path / "none.pt")
    for name in ("text.pt", "text.safetensors", "empty.pt", "none.pt", "absent.pt"):
        with pytest.raises(DataError, match=re.escape(name)):
            read_checkpoint(tmp_path / name)


def test_command_writes_a_marked_bundle(tmp_path: Path) -> None:
    import onnxruntime

    paper = gently(PaperFusion("concat", pain=True))
    file, out = tmp_path / "jmt.pt", tmp_path / "mine.jmt"
    torch.save({"state_dict": paper.state_dict(), "epoch": 3}, file)
    eda = {"a.0.weight": torch.randn(32, 1, 5), "a.0.bias": torch.randn(32), "a.3.weight": torch.randn(64, 32, 5),
           "a.3.bias": torch.randn(64), "f.weight": torch.randn(512, 22336), "f.bias": torch.randn(512)}  # fmt: skip
    torch.save(eda, tmp_path / "eda.pt")
    arguments = ["import", str(file), "--task", "pain", "--out", str(out), "--backbone", f"eda={tmp_path / 'eda.pt'}"]
    refused = CliRunner().invoke(cli, arguments)
    assert "no weights for the face backbone" in str(refused.exception)
    assert not out.exists()
    done = CliRunner().invoke(cli, [*arguments, "--allow-untrained"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "used     out_layer1.weight -> concat.weight" in done.output
    assert "ignored  final_encoder.weight (unused by the published forward pass)" in done.output
    assert "missing  missing.tokens.face" in done.output
    bundle = load_bundle(out)
    assert bundle.manifest["untrained_networks"] == ["face"]
    assert bundle.task.head == "concat"
    v, p = torch.randn(1, 1, D), torch.randn(1, 1, D)
    with torch.no_grad():
        expected = paper(v, p).numpy()
    session = onnxruntime.InferenceSession(bundle.graph("fusion.onnx"))
    feed = {"face": v.numpy(), "eda": p.numpy(), "present": np.ones((1, 1, 2), np.float32)}
    found = session.run(["pain"], feed)[0]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    live = CliRunner().invoke(
        cli,
        ["live", "--bundle", str(out), "--duration", "8", "--speed", "max", "--hop", "2", "--output", "jsonl",
         "--backend", "onnxruntime", "--threads", "1"],
        catch_exceptions=False,
    )  # fmt: skip
    assert live.exit_code == 0
    rows = [json.loads(line) for line in live.stdout.splitlines() if line.startswith("{")]
    answers = [row["outputs"]["pain"] for row in rows if row["outputs"] is not None]
    assert answers
    assert all(0 <= p <= 1 for p in answers)


def test_an_imported_affect_bundle_cuts_the_released_codes_voice_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = []

    def export(model: nn.Module, task: Task, path: Path, **_: object) -> SimpleNamespace:
        tasks.append(Task.from_dict(json.loads(json.dumps(task.to_dict()))))  # as from the manifest
        return SimpleNamespace(path=path, id="")

    monkeypatch.setattr("jmt_edge.compiler.export.export_bundle", export)
    torch.save(PaperAffect("self_attention").state_dict(), tmp_path / "jmt.pt")
    arguments = ["import", str(tmp_path / "jmt.pt"), "--task", "affect", "--out", str(tmp_path / "x.jmt")]
    CliRunner().invoke(cli, [*arguments, "--allow-untrained"], catch_exceptions=False)
    voice = tasks[0].modality("voice")
    assert (voice.top_db, voice.pad) == (80.0, 45_599)
