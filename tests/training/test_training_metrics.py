"""Losses and metrics against independent implementations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk
from torchmetrics.classification import BinaryCalibrationError
from torchmetrics.functional import concordance_corrcoef

from jmt_edge import metrics
from jmt_edge.training import losses

finite = st.floats(-3, 3, width=32)
N = st.integers(3, 60)


def arrays(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.normal(size=n)


@settings(max_examples=60, deadline=None)
@given(N, st.integers(0, 10_000))
def test_ccc_is_torchmetrics(n: int, seed: int) -> None:
    x, y = arrays(n, seed)
    y = 0.5 * x + y
    # torchmetrics uses sample moments, Lin's paper and ours the population's: equal up to n / (n - 1) on the spread
    expected = 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    sample = float(concordance_corrcoef(torch.tensor(x), torch.tensor(y)))
    ratio = (x.var() + y.var()) * n / (n - 1)
    rescaled = (
        sample * (ratio + (x.mean() - y.mean()) ** 2) * (n - 1) / n / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    )
    assert metrics.ccc(x, y) == pytest.approx(expected, abs=1e-9)
    assert metrics.ccc(x, y) == pytest.approx(rescaled, abs=1e-5)
    assert float(losses.ccc(torch.tensor(x), torch.tensor(y))) == pytest.approx(expected, abs=1e-5)


def test_ccc_is_torchmetrics_for_many_samples() -> None:
    x, y = arrays(50_000, 1)
    y += x
    assert metrics.ccc(x, y) == pytest.approx(float(concordance_corrcoef(torch.tensor(x), torch.tensor(y))), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.integers(2, 50), elements=st.integers(0, 1)), st.integers(0, 1000))
def test_classification_metrics_are_scikit_learns(y: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(0, 8, len(y)) / 8 + 1e-9  # ties on purpose
    d = p >= 0.5
    assert metrics.accuracy(d, y) == pytest.approx(sk.accuracy_score(y, d))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metrics.balanced_accuracy(d, y) == pytest.approx(sk.balanced_accuracy_score(y, d))
    assert metrics.f1(d, y) == pytest.approx(sk.f1_score(y, d, zero_division=0))
    assert metrics.brier(p, y) == pytest.approx(np.mean((p - y) ** 2))
    assert (metrics.confusion(d, y) == sk.confusion_matrix(y, d, labels=[0, 1])).all()
    if 0 < y.sum() < len(y):
        assert metrics.auc(p, y) == pytest.approx(sk.roc_auc_score(y, p))
    else:
        assert np.isnan(metrics.auc(p, y))


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 400), st.integers(0, 1000), st.sampled_from([5, 10, 15]))
def test_ece_is_torchmetrics(n: int, seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.uniform(0.001, 0.999, n), rng.integers(0, 2, n)
    # torchmetrics bins the probability of class 1; ours the confidence of the decision: feed it the latter
    confidence, right = np.maximum(p, 1 - p), (p >= 0.5) == y
    other = BinaryCalibrationError(n_bins=bins, norm="l1")(torch.tensor(confidence), torch.tensor(right.astype(int)))
    assert metrics.ece(p, y, bins) == pytest.approx(float(other), abs=1e-5)


def test_unlabelled_values_change_nothing() -> None:
    x, y = arrays(40, 3)
    some = y.copy()
    some[::3] = np.nan
    keep = ~np.isnan(some)
    assert metrics.ccc(x, some) == metrics.ccc(x[keep], y[keep])
    prediction = torch.tensor(x, requires_grad=True)
    loss = losses.ccc_loss(prediction, torch.tensor(some))
    loss.backward()
    assert float(loss) == pytest.approx(1 - metrics.ccc(x[keep], y[keep]), abs=1e-6)
    assert (prediction.grad[torch.tensor(~keep)] == 0).all()
    assert (prediction.grad[torch.tensor(keep)] != 0).any()


def test_pain_loss_ignores_unlabelled_steps() -> None:
    logits = torch.randn(4, 3, 2, requires_grad=True)
    label = torch.tensor([[0.0, 1.0, float("nan")]] * 4)
    loss = losses.pain_loss(logits, label)
    loss.backward()
    expected = torch.nn.functional.cross_entropy(logits[:, :2].reshape(-1, 2), label[:, :2].reshape(-1).long())
    assert torch.allclose(loss, expected)
    assert (logits.grad[:, 2] == 0).all()


@pytest.mark.parametrize("n", [2, 7, 50])
def test_ccc_gradient(n: int) -> None:
    torch.manual_seed(n)
    x = torch.randn(n, dtype=torch.float64, requires_grad=True)
    y = torch.randn(n, dtype=torch.float64)

    def loss(v: torch.Tensor) -> torch.Tensor:
        d, e = v - v.mean(), y - y.mean()
        return 1 - 2 * (d * e).mean() / (d.pow(2).mean() + e.pow(2).mean() + (v.mean() - y.mean()).pow(2))

    assert torch.autograd.gradcheck(loss, x)  # the reference in float64
    losses.ccc_loss(x, y).backward()
    assert torch.allclose(x.grad, torch.autograd.grad(loss(x), x)[0], atol=1e-5)


def test_ccc_loss_without_labels_is_zero_with_a_gradient() -> None:
    x = torch.randn(3, requires_grad=True)
    loss = losses.ccc_loss(x, torch.full((3,), torch.nan))
    loss.backward()
    assert float(loss) == 0
    assert (x.grad == 0).all()


def test_causal_smoothing_never_sees_the_future() -> None:
    x = np.zeros(30)
    x[15] = 1
    assert (metrics.smooth_causal(x, 5)[:15] == 0).all()
    assert metrics.smooth_causal(x, 5)[15:20] == pytest.approx(0.2)
    assert metrics.smooth_centred(x, 5)[13:18] == pytest.approx(0.2)
    assert metrics.smooth_causal(np.arange(4.0), 2) == pytest.approx([0, 0.5, 1.5, 2.5])


def test_interval_covers_and_widens_with_fewer_subjects() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    p = np.clip(y * 0.3 + rng.uniform(0, 0.7, 2000), 0, 1)
    many, few = np.arange(2000) % 100, np.arange(2000) % 100 // 20
    wide = metrics.bootstrap_interval(metrics.auc, p, y, many)
    assert wide[0] < metrics.auc(p, y) < wide[1]
    shifted = p + 0.1 * few  # subjects differ
    of_few = metrics.bootstrap_interval(metrics.accuracy, shifted >= 0.5, y, few)
    of_many = metrics.bootstrap_interval(metrics.accuracy, shifted >= 0.5, y, many)
    assert of_few[1] - of_few[0] > of_many[1] - of_many[0]
    assert np.isnan(metrics.bootstrap_interval(metrics.auc, p, y, np.zeros(2000))).all()  # one subject says nothing


def test_temperature_recovers_the_scale() -> None:
    from jmt_edge.training.scores import fit_temperature

    rng = np.random.default_rng(1)
    logit = rng.normal(0, 2, 20_000)
    y = (rng.uniform(size=logit.size) < 1 / (1 + np.exp(-logit))).astype(float)
    assert fit_temperature(logit * 3, y) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logit, np.ones_like(y)) == 1.0
