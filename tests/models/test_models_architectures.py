"""Every architecture: shapes, batch invariance, masks, refusals; backbones against torchvision and the papers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from jmt_edge.errors import ConfigError, DataError
from jmt_edge.models import (
    JMT,
    IntraModalFusion,
    JointCrossAttention,
    build_backbone,
    build_fusion,
    build_model,
    load_pretrained,
)
from jmt_edge.models.folding import block_order
from jmt_edge.models.layers import Attention
from jmt_edge.models.temporal import StepGru, TemporalConvNet
from jmt_edge.tasks import get_task, split_steps

TINY_FACE = (3, 8, 32, 32)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def assert_batch_invariant(module: nn.Module, call: Any, batch: int = 3) -> None:
    """`call(indices)` -> {name: (len(indices), ...)}: alone, in any order, in any company."""
    module.eval()
    with torch.no_grad():
        whole = call(list(range(batch)))
        for i in range(batch):
            alone = call([i])
            for name, value in whole.items():
                torch.testing.assert_close(alone[name][0], value[i], rtol=1e-5, atol=1e-6)
        reverse = call(list(range(batch))[::-1])
        for name, value in whole.items():
            torch.testing.assert_close(reverse[name].flip(0), value, rtol=1e-5, atol=1e-6)


FUSIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("jmt", {}, {}),
    ("jmt", {"head": "concat"}, {}),
    ("jmt", {"attention": "key_based"}, {}),
    ("jmt", {"attention": "sigmoid"}, {}),
    ("jmt", {"heads": 8}, {}),
    ("jmt", {}, {"audio_gru": True}),
    ("jmt_no_joint", {}, {}),
    ("vanilla", {}, {}),
    ("concat", {}, {}),
    ("jca", {}, {}),
    ("rjca", {}, {"recursions": 2}),
    ("rjcma", {}, {}),
    ("rjcma", {}, {"text": True}),
]


@pytest.mark.parametrize(("kind", "changes", "options"), FUSIONS, ids=lambda x: str(x))
def test_fusions_do_not_mix_samples(kind: str, changes: dict[str, Any], options: dict[str, Any]) -> None:
    """The published pain code attends across the batch; every fusion here is blind to the rest of its batch."""
    task = replace(get_task("affect", "demo"), steps=5, **changes)
    fusion = build_fusion(task, kind, **options)
    features = {m: torch.randn(3, 5, 768 if m == "text" else task.dim) for m in fusion.modalities}
    present = (torch.rand(3, 5, len(fusion.modalities)) > 0.3).float()

    def call(indices: list[int]) -> dict[str, Tensor]:
        return fusion({m: x[indices] for m, x in features.items()}, present[indices], return_attention=True)

    assert_batch_invariant(fusion, call)
    with torch.no_grad():
        out = call([0, 1, 2])
        last = fusion(features, present, return_attention=True, last=True)
    for name, value in out.items():  # the last step alone is the last of all
        torch.testing.assert_close(last[name], value[:, -1:])
    assert last.keys() == out.keys()
    assert out["valence"].shape == out["arousal"].shape == (3, 5)
    assert ("attention" in out) == (kind.startswith("jmt") and task.head == "self_attention")


@pytest.mark.parametrize("name", ["pain", "affect", "trimodal"])
def test_whole_models_do_not_mix_samples(name: str) -> None:
    task = get_task(name, "demo")
    face = replace(task.modalities[0], shape=TINY_FACE, width=2)
    task = replace(task, modalities=(face, *task.modalities[1:]), steps=min(task.steps, 3))
    model = build_model(task)
    clips = {m.name: torch.randn(3, task.steps if m.stride else 1, *m.shape) for m in task.modalities}
    assert_batch_invariant(model, lambda i: model({n: c[i] for n, c in clips.items()}))
    with torch.no_grad():
        out = model(clips, return_attention=True)
        without = model({n: c for n, c in clips.items() if n != "face"}, return_attention=True)
    torch.testing.assert_close(out["attention"].sum(-1), torch.ones(3, task.steps))
    assert (without["attention"][..., 0] == 0).all()
    shapes = {"pain": (3, task.steps, 2), "valence": (3, task.steps), "arousal": (3, task.steps)}
    assert {o: tuple(out[o].shape) for o in task.outputs} == {o: shapes[o] for o in task.outputs}


def test_absent_features_have_no_effect() -> None:
    fusion = JMT(("face", "voice", "eda"), 16, ("pain",)).eval()
    features = {m: torch.randn(2, 3, 16) for m in fusion.modalities}
    present = torch.ones(2, 3, 3)
    present[0, 1, 2] = present[1, :, 0] = 0
    poisoned = {m: x.clone() for m, x in features.items()}
    poisoned["eda"][0, 1] = poisoned["face"][1] = math.nan
    with torch.no_grad():
        expected, found = (fusion(x, present, True) for x in (features, poisoned))
        nothing = fusion(features, torch.zeros(2, 3, 3), True)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    assert (found["attention"][0, 1, 2] == 0) and (found["attention"][1, :, 0] == 0).all()
    assert nothing["pain"].isfinite().all()
    assert (nothing["attention"] == 0).all()


def test_block_order_is_the_papers() -> None:
    assert block_order(("v", "p")) == (
        ("v", "p"), ("p", "v"), ("joint", "v"), ("v", "joint"), ("joint", "p"), ("p", "joint"),
    )  # fmt: skip
    assert len(block_order(("a", "b", "c"))) == 12


@pytest.mark.parametrize("heads", [1, 4])
def test_standard_attention_is_torchs(heads: int) -> None:
    ours, theirs = Attention(16, heads), nn.MultiheadAttention(16, heads, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    x, y = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    for found, expected in zip(ours(x, y), theirs(x, y, y)):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["key_based", "sigmoid"])
def test_printed_attention_formulas(kind: str) -> None:
    layer = Attention(6, kind=kind)
    x, y = torch.randn(4, 6), torch.randn(4, 6)
    q, k, v = (s @ w.T for s, w in zip((x, y, y), layer.in_proj_weight.chunk(3)))
    scores = k @ q.T
    weights = torch.sigmoid(scores) if kind == "sigmoid" else torch.softmax(scores / 6, dim=1)
    torch.testing.assert_close(layer(x[None], y[None])[0][0], layer.out_proj(weights @ v))


def test_joint_cross_attention_equations() -> None:
    """One recursion written with the paper's column matrices X_m (d_m x K), then a second on its result."""
    fusion = JointCrossAttention(("face", "voice"), (4, 6), ("valence",), steps=3, recursions=2).eval()
    features = {"face": torch.randn(1, 3, 4), "voice": torch.randn(1, 3, 6)}
    x = {m: f[0].T for m, f in features.items()}
    with torch.no_grad():
        for _ in range(2):
            stacked = torch.cat([x["face"], x["voice"]])
            j = fusion.joint.weight @ stacked + fusion.joint.bias[:, None]
            new = {}
            for m in x:
                c = torch.tanh(x[m].T @ fusion.w_joint[m] @ j / math.sqrt(10))
                new[m] = torch.relu(x[m] @ fusion.w_c[m] @ c) @ fusion.w_h[m] + x[m]
            x = new
        expected = fusion.heads(torch.cat([x["face"], x["voice"]]).T[None])["valence"]
        torch.testing.assert_close(fusion(features)["valence"], expected)


@pytest.mark.parametrize("network", [TemporalConvNet(4, (6, 6)), StepGru(4)])
def test_temporal_networks_are_causal(network: nn.Module) -> None:
    network.eval()
    x = torch.randn(1, 9, 4)
    changed = x.clone()
    changed[:, 6:] += 1
    with torch.no_grad():
        before, after = network(x), network(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert (before[:, 6:] != after[:, 6:]).any()


BACKBONES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("r2plus1d_18", TINY_FACE, {}),
    ("r2plus1d_18", TINY_FACE, {"feature": "mean"}),
    ("r2plus1d_18", (3, 8, 48, 48), {"feature": "fc"}),
    ("r3d_18", (3, 10, 32, 32), {}),
    ("i3d", TINY_FACE, {"resize": 64}),
    ("resnet18_audio", (1, 64, 107), {}),
    ("eda_cnn1d", (1, 704), {}),
    ("eda_cnn1d", (1, 2816), {"relu": False}),
    ("eda_pooled", (1, 240), {}),
    ("face_actions", (11, 10), {}),
    ("r2plus1d_18+i3d", TINY_FACE, {"combine": "fc", "i3d": {"resize": 64}}),
    ("r2plus1d_18+i3d", TINY_FACE, {"combine": "tr", "i3d": {"resize": 64}}),
]


@pytest.mark.parametrize(("name", "shape", "options"), BACKBONES, ids=lambda x: str(x))
@pytest.mark.parametrize("dim", [24])
def test_backbones(name: str, shape: tuple[int, ...], options: dict[str, Any], dim: int) -> None:
    backbone = build_backbone(name, shape, 4, dim, l2_normalise=True, **options)
    for module in backbone.modules():  # as after training: running statistics of some batch
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    clips = torch.randn(3, *shape)
    assert_batch_invariant(backbone, lambda i: {"features": backbone(clips[i])})
    with torch.no_grad():
        out = backbone(clips)
    assert out.shape == (3, dim)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(3))
    assert (out[0] - out[1]).abs().max() > 1e-4


def test_eda_lengths_of_the_paper() -> None:
    backbone = build_backbone("eda_cnn1d", (1, 2816), 32, 512)
    assert backbone.fc.in_features == 22336
    sizes = []
    for layer in (backbone.conv1, backbone.conv2):
        layer.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    assert (backbone(torch.randn(1, 1, 2816)) >= 0).all()
    assert sizes == [1406, 699]
    with pytest.raises(ConfigError, match="too few"):
        build_backbone("eda_cnn1d", (1, 20), 32, 512)


@pytest.mark.parametrize(("samples", "shift"), [(240, 40), (2500, 400)])  # 30 s at 8 Hz, 10 s at 250 Hz
def test_pooled_eda_sees_a_response_not_its_place(samples: int, shift: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("eda_pooled", (1, samples), 8, 32).eval()
    t = torch.linspace(0, 1, samples)
    pulse = torch.exp(-(((t - 0.4) / 0.04) ** 2))

    def seen(level: float, height: float, by: int = 0) -> torch.Tensor:
        with torch.no_grad():
            return backbone((level + height * torch.roll(pulse, by))[None, None])[0]

    one = seen(50, 2)
    scale = (one - seen(50, 0)).norm()
    assert (one - seen(50, 2, shift)).norm() < 0.02 * scale  # later, and all the same
    assert (one - seen(50, 4)).norm() > 0.1 * scale  # twice as high is something else
    assert (one - seen(60, 2)).norm() < 0.1 * scale  # the level alone hardly counts
    with pytest.raises(ConfigError, match="too few"):
        build_backbone("eda_pooled", (1, 50), 8, 32)


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18"])
def test_video_weights_are_torchvisions(name: str, tmp_path: Path) -> None:
    """Key for key at full width, prefix and all; the map behind layer4 is then torchvision's."""
    theirs = getattr(torchvision.models.video, name)().eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "w.pt")
    ours = build_backbone(name, (3, 4, 32, 32), 64, 512).eval()
    report = load_pretrained(ours, tmp_path / "w.pt")
    assert {k for k, _ in report.ignored} == {"module.fc.weight", "module.fc.bias"}
    assert set(report.missing) == ({"fc.weight", "fc.bias"} if name == "r3d_18" else set())
    assert any("used     module.stem.0.weight -> stem.0.weight" in line for line in report.lines())
    maps: list[Tensor] = []
    theirs.layer4.register_forward_hook(lambda _m, _i, out: maps.append(out))
    ours.layer4.register_forward_hook(lambda _m, _i, out: maps.append(out))
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        theirs(clip)
        features = ours(clip)
    torch.testing.assert_close(maps[0], maps[1])
    if name == "r2plus1d_18":
        torch.testing.assert_close(features, maps[0].amax((2, 3, 4)))


def test_audio_takes_the_mean_of_rgb_kernels(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    ours = build_backbone("resnet18_audio", (1, 64, 107), 64, 512).eval()
    report = load_pretrained(ours, tmp_path / "w.pt")
    assert report.missing == ()
    theirs.fc = nn.Identity()
    x = torch.randn(1, 1, 64, 107)
    with torch.no_grad():  # a grey image: the sum over equal channels is three times the mean kernel
        torch.testing.assert_close(ours(3 * x), theirs(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_i3d_key_names_and_sizes() -> None:
    keys = set(build_backbone("i3d", (3, 8, 224, 224), 8, 64).i3d.state_dict())
    for key in ("Conv3d_1a_7x7.conv3d.weight", "Conv3d_2c_3x3.bn.running_var", "Mixed_3b.b1a.conv3d.weight",
                "Mixed_4f.b2b.bn.weight", "Mixed_5c.b3b.conv3d.weight"):  # fmt: skip
        assert key in keys
    state = {k: torch.zeros_like(v) for k, v in build_backbone("i3d", TINY_FACE, 4, 8).i3d.state_dict().items()}
    assert sum("conv3d" in k for k in state) == 57  # 3 before the blocks, 9 blocks of 6


def test_i3d_alone_loads_under_the_tcn(tmp_path: Path) -> None:
    backbone = build_backbone("i3d", TINY_FACE, 4, 8)
    torch.save({k: v + 1 for k, v in backbone.i3d.state_dict().items()}, tmp_path / "rgb.pt")
    report = load_pretrained(backbone, tmp_path / "rgb.pt")
    assert all(n.startswith("tcn.") for n in report.missing)
    assert ("Mixed_5c.b3b.conv3d.weight", "i3d.Mixed_5c.b3b.conv3d.weight") in report.used


def test_pretrained_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error

    video = build_backbone("r2plus1d_18", TINY_FACE, 4, 32)
    torch.save(build_backbone("r3d_18", TINY_FACE, 4, 32).state_dict(), tmp_path / "other.pt")
    with pytest.raises(DataError, match=r"other\.pt does not fit this VideoResNet"):
        load_pretrained(video, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="width 64"):
        load_pretrained(video)
    with pytest.raises(ConfigError, match="no weights for EdaCnn"):
        load_pretrained(build_backbone("eda_cnn1d", (1, 704), 4, 8))

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(DataError, match=r"could not be downloaded.*--weights FILE"):
        load_pretrained(build_backbone("resnet18_audio", (1, 64, 107), 64, 512))


def test_intra_modal_takes_features_of_any_width() -> None:
    a, b = torch.randn(2, 5, 512), torch.randn(2, 5, 768)
    for kind in ("fc", "tr"):
        fused = IntraModalFusion(512, 768, 512, kind)(a, b)  # type: ignore[arg-type]
        assert fused.shape == (2, 5, 512)
    with pytest.raises(ConfigError, match="fc or tr"):
        IntraModalFusion(4, 4, 4, "sum")  # type: ignore[arg-type]


def test_pain_in_four_steps_and_unimodal() -> None:
    task = split_steps(get_task("pain", "demo"), 4)
    face = replace(task.modalities[0], shape=TINY_FACE, width=2)
    model = build_model(replace(task, modalities=(face, task.modalities[1]))).eval()
    clips = {"face": torch.randn(1, 4, *TINY_FACE), "eda": torch.randn(1, 4, 1, 704)}
    assert model(clips)["pain"].shape == (1, 4, 2)
    eda = build_model(replace(get_task("pain", "demo"), modalities=(get_task("pain", "demo").modality("eda"),)))
    assert eda({"eda": torch.randn(2, 1, 1, 2816)})["pain"].shape == (2, 1, 2)
    assert isinstance(eda.fusion.heads["pain"], nn.Linear)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"attention": "cosine"}, {}, "unknown attention 'cosine'"),
        ({"heads": 7}, {}, "7 attention heads do not divide 64"),
        ({"head": "mean"}, {}, "unknown head 'mean'"),
        ({}, {"fusion": "sum"}, "unknown fusion 'sum'"),
        ({}, {"text": True}, "text features are for joint cross attention only"),
        ({}, {"recursions": 2}, "has no recursions"),
        ({}, {"audio_gru": True}, "has no voice"),
        ({}, {"backbone_options": {"voice": {}}}, "options for voice, but task"),
        ({}, {"backbone_options": {"eda": {"feature": "max"}}}, "does not take the options feature"),
        ({}, {"fusion": "unimodal"}, "takes one modality"),
    ],
)
def test_refusals(change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(replace(get_task("pain", "demo"), **change), **options)
