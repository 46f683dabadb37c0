"""The folded plan equals the module it was folded from, in float64, for every form that folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plan_outputs import plan_outputs
from torch import nn

from jmt_edge.errors import ConfigError
from jmt_edge.models.folding import FoldedPlan, fold
from jmt_edge.models.fusion import JMT, Concat

AFFECT = ("valence", "arousal")
NAMES = ("face", "voice", "eda")


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter away from its initial value, biases and norms included; outputs that vary with the input."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() > 1:
            p.data = noise * 1.5 / p[0].numel() ** 0.5
        else:
            p.data = 0.2 * noise + float("norm" in name and name.endswith("weight"))
    return module.eval()


def inputs(m: int, s: int, d: int, b: int = 2, seed: int = 1) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    features = {n: torch.randn(b, s, d, generator=g, dtype=torch.float64) for n in NAMES[:m]}
    return features, (torch.rand(b, s, m, generator=g) > 0.3).double()


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("s", [1, 5])
@pytest.mark.parametrize("head", ["self_attention", "concat"])
@pytest.mark.parametrize("outputs", [("pain",), AFFECT, ("pain", *AFFECT)])
def test_folded_equals_module(m: int, s: int, head: str, outputs: tuple[str, ...]) -> None:
    fusion = randomise(JMT(NAMES[:m], 24, outputs, head=head)).double()
    features, present = inputs(m, s, 24)
    with torch.no_grad():
        expected = fusion(features, present, return_attention=True)
    plan = fold(fusion)
    found = plan_outputs(plan, features, present)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.std() > 1e-3
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-10, atol=1e-12)


def test_joint_abs_folds() -> None:
    fusion = randomise(JMT(NAMES[:2], 16, ("pain",), head="concat", joint_abs=True)).double()
    features, present = inputs(2, 3, 16)
    with torch.no_grad():
        expected = fusion(features, present)["pain"].numpy()
    found = plan_outputs(fold(fusion), features, present)["pain"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_full_width_counts_and_float32_error() -> None:
    fusion = randomise(JMT(NAMES[:2], 512, AFFECT))
    live = sum(p.numel() for n, p in fusion.named_parameters() if not n.startswith(("missing", "heads")))
    assert live == pytest.approx(11.04e6, rel=1e-3)
    plan = fold(fusion)
    assert sum(m.size for m in plan.matrices.values()) < 7.1e6
    features, present = inputs(2, 4, 512, b=1)
    exact = plan_outputs(plan, features, present)
    single = plan_outputs(plan, features, present, torch.float32)
    for name in AFFECT:
        assert single[name].dtype == np.float32
        assert np.abs(single[name] - exact[name]).max() < 1e-5 * np.abs(exact[name]).max()


def test_safetensors_round_trip() -> None:
    plan = fold(randomise(JMT(NAMES, 8, ("pain",))))
    again = FoldedPlan.from_safetensors_dict(*plan.to_safetensors_dict(np.float64))
    assert again.structure() == plan.structure()
    assert all((again.matrices[k] == v).all() for k, v in plan.matrices.items())
    with pytest.raises(ConfigError, match="not a folded fusion"):
        FoldedPlan.from_safetensors_dict({}, {})


def test_groups_cover_blocks() -> None:
    plan = fold(JMT(NAMES, 8, ("pain",)))
    assert sorted(i for _, _, where in plan.groups() for i in where) == list(range(12))
    assert all(plan.blocks[i] == (q, k) for q, keys, where in plan.groups() for k, i in zip(keys, where))
    assert plan.blocks[-1] == (2, 3)


@pytest.mark.parametrize(
    ("fusion", "reason"),
    [
        (JMT(NAMES, 16, AFFECT, heads=2), "2 attention heads"),
        (JMT(NAMES, 16, AFFECT, attention="sigmoid"), "sigmoid"),
        (JMT(NAMES, 16, AFFECT, attention="key_based"), "key_based"),
        (JMT(NAMES, 16, AFFECT, joint=False), "no joint"),
        (JMT(NAMES, 16, AFFECT, temporal={"voice": nn.Identity()}), "temporal network"),
        (Concat(NAMES, 16, AFFECT), "Concat"),
    ],
)
def test_refusals_name_the_reason(fusion: nn.Module, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        fold(fusion)
