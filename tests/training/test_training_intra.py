"""Two visual backbones, trained apart and combined before a fusion: the JMT paper's best systems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jmt_edge.errors import ConfigError
from jmt_edge.training.evaluation import disturb
from jmt_edge.training.experiment import exportable
from jmt_edge.training.networks import SECOND, TwoVisual, backbone_task, fusion_of
from jmt_edge.training.recipes import load_recipe

D, S = 64, 4


def fusion(name: str) -> TwoVisual:
    recipe = load_recipe(name, ["steps=4"], variant="demo")
    torch.manual_seed(0)
    found = fusion_of(recipe, recipe.resolve(), 0.0).eval()
    assert isinstance(found, TwoVisual)
    return found


def inputs(batch: int = 3) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, S, D, generator=g) for m in ("face", "voice", SECOND)}


class ReleasedEncoder(nn.Module):
    """The released combination by a transformer, from `nn.MultiheadAttention`, sequence first."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, 1)
        self.feed_forward = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D))
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.last = nn.MultiheadAttention(D, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = torch.stack([a.flatten(0, 1), b.flatten(0, 1)])  # (2, B S, D), sequence first
        x = self.layer_norm1(x + self.attention(x, x, x)[0])
        x = self.layer_norm2(x + self.feed_forward(x))
        return self.last(x, x, x)[0][-1].unflatten(0, a.shape[:2])


def test_the_combination_by_a_transformer_is_the_released_one() -> None:
    ours, released = fusion("affwild2-jmt-intra-tr"), ReleasedEncoder().eval()
    state = {f"encoder.{k}": v for k, v in released.state_dict().items() if not k.startswith("last.")}
    state |= {k.replace("last.", "attention."): v for k, v in released.state_dict().items() if k.startswith("last.")}
    ours.combine.load_state_dict(state)
    x = inputs()
    with torch.no_grad():
        expected = released(x["face"], x[SECOND])
        torch.testing.assert_close(ours.combine(x["face"], x[SECOND]), expected, atol=1e-5, rtol=1e-5)
        # what reaches the joint transformer is the combination, of length one
        plain = ours.fusion({"face": F.normalize(expected, dim=-1), "voice": x["voice"]})
        for output, value in ours(x).items():
            torch.testing.assert_close(value, plain[output], atol=1e-5, rtol=1e-5)


def test_the_combination_by_a_layer_is_the_released_one() -> None:
    ours, x = fusion("affwild2-jmt-intra-fc"), inputs()
    with torch.no_grad():
        both = torch.cat([x["face"], x[SECOND]], -1) @ ours.combine.fc.weight.T + ours.combine.fc.bias
        plain = ours.fusion({"face": both / both.norm(dim=-1, keepdim=True), "voice": x["voice"]})
        for output, value in ours(x).items():
            torch.testing.assert_close(value, plain[output], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["affwild2-jmt-intra-fc", "affwild2-jmt-intra-tr"])
def test_an_absent_face_is_absent_in_both_backbones_and_its_noise_is_in_both(name: str) -> None:
    ours, x = fusion(name), inputs()
    assert ours.modalities == ("face", "voice")
    hidden = torch.ones(3, S, 2)
    hidden[..., 0] = 0
    other = {**x, "face": x["face"] + 1, SECOND: x[SECOND] - 1}
    tables = {m: v.numpy() for m, v in x.items()}
    with torch.no_grad():
        for output, value in ours(x, hidden).items():
            torch.testing.assert_close(value, ours(other, hidden)[output])
        assert any((ours(x)[o] - ours(other)[o]).abs().max() > 1e-3 for o in ours.outputs)
    noisy, _ = disturb(ours.modalities, tables, "", ("face", 1.0))(x, torch.ones(3, S, 2))
    for m in ("face", SECOND):
        assert (noisy[m] - x[m]).std() == pytest.approx(float(np.std(tables[m])), rel=0.2)
    assert (noisy["voice"] == x["voice"]).all()
    noisy, _ = disturb(ours.modalities, tables, "", ("voice", 1.0))(x, torch.ones(3, S, 2))
    assert (noisy["face"] == x["face"]).all() and (noisy[SECOND] == x[SECOND]).all()


def test_recipes_of_two_visual_backbones() -> None:
    for how in ("fc", "tr"):
        recipe = load_recipe(f"affwild2-jmt-intra-{how}")
        assert recipe.backbones() == ("r2plus1d_18", "i3d", "resnet18_audio")
        assert (recipe.fusion, recipe.intra, recipe.stage("second")) == ("jmt", how, recipe.stage("face"))
        task = recipe.resolve()
        assert not exportable(recipe, task)
        normalised = [backbone_task(recipe, task, m).l2_normalise for m in task.modalities]
        assert normalised == [False, True]
        alone = load_recipe(f"affwild2-intra-{how}")
        assert alone.backbones() == ("r2plus1d_18", "i3d")
    for name in ("jmt", "vanilla", "concat"):
        assert load_recipe(f"affwild2-{name}-i3d").backbones() == ("i3d", "resnet18_audio")


@pytest.mark.parametrize(
    "settings",
    [
        {"second": ""},
        {"intra": ""},
        {"fusion": "unimodal"},
        {"fusion": "intra_fc"},
        {"fusion": "intra_fc", "intra": "x"},
    ],
)
def test_a_second_backbone_needs_a_way_to_be_combined(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="second backbone is combined by"):
        replace(load_recipe("affwild2-jmt-intra-fc"), **settings).resolve()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not one of"):
        load_recipe("affwild2-jmt", ["second=i3d", "intra=sum"])
