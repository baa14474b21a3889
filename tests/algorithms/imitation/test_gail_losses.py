"""Rewards and losses of GAIL by hand."""

import math
from functools import partial

import pytest
import torch

from algorithms.imitation.adversarial import (
    airl_reward,
    bce_loss,
    bernoulli_entropy,
    binary_cross_entropy,
    fairl_reward,
    gail_reward,
    mixup_loss,
    pugail_loss,
)
from memory.batch import FIELDS
from tests.algorithms.imitation.test_gail import LN2, LOG3, ONE, logit, make_gail, make_policy
from tests.algorithms.support import make_batch


def test_rewards_by_hand() -> None:
    # D = 0: p = 1/2; D = log 3: p = 3/4. -log(1 - p) = log 2, log 4; log p - log(1 - p) = 0, log 3.
    assert gail_reward(logit(0.0, LOG3))[0].tolist() == pytest.approx([LN2, 2 * LN2], abs=1e-5)
    assert airl_reward(logit(0.0, LOG3, -LOG3))[0].tolist() == pytest.approx([0.0, LOG3, -LOG3], abs=1e-5)
    # h = log 3: -log 3 * 3 = -3.295837; h = -log 3: log 3 / 3 = 0.366204.
    assert fairl_reward(logit(0.0, LOG3, -LOG3))[0].tolist() == pytest.approx([0.0, -3.295837, 0.366204], abs=1e-4)


def test_rewards_at_saturated_logits() -> None:
    limit = -math.log(1e-6)  # 13.8155
    assert gail_reward(logit(200.0, -200.0))[0].tolist() == pytest.approx([limit, 0.0], abs=1e-5)
    assert airl_reward(logit(200.0, -200.0))[0].tolist() == pytest.approx([limit, -limit], abs=1e-5)
    # -13.8155 * 1e6, and 13.8155 * 1e-6.
    assert fairl_reward(logit(200.0))[0].item() == pytest.approx(-limit * 1e6, rel=1e-3)
    assert fairl_reward(logit(-200.0))[0].item() == pytest.approx(limit * 1e-6, rel=1e-3)


def test_binary_cross_entropy_by_hand() -> None:
    # Label 1: -log 1/2 = log 2, -log 3/4 = log 4/3, halved by its weight; mean (0.693147 + 0.143841) / 2.
    assert binary_cross_entropy(logit(0.0, LOG3), 1.0, logit(1.0, 0.5)).item() == pytest.approx(0.418494, abs=1e-6)
    # Label 0: log 2 and, at D = log 3, -log 1/4 = log 4.
    assert binary_cross_entropy(logit(0.0, LOG3), 0.0, logit(1.0, 1.0)).item() == pytest.approx(1.5 * LN2, abs=1e-6)
    assert binary_cross_entropy(logit(500.0, -500.0), 1.0, logit(1.0, 1.0)).item() == pytest.approx(250.0)


def test_both_terms_of_the_loss() -> None:
    # Expert 0.418494 as above; learner at -log 3: log 4/3 = 0.287682, weights 2 and 1.
    loss = bce_loss(logit(0.0, LOG3), logit(-LOG3, -LOG3), logit(1.0, 0.5), logit(2.0, 1.0))
    assert loss.item() == pytest.approx(0.418494 + 1.5 * 0.287682, abs=1e-5)


@pytest.mark.parametrize(
    ("learner", "margin", "expected"),
    [
        # R_E(1) = log 4/3 = 0.287682, R_E(0) = log 4 = 1.386294 at D_E = log 3; eta = 0.7.
        (LOG3, 0.0, 0.617265),  # 0.7 * 0.287682 + (1.386294 - 0.7 * 1.386294) = 0.201377 + 0.415888
        (-LOG3, 0.0, 0.201377),  # negative risk 0.287682 - 0.970406 = -0.682724, held at 0
        (-LOG3, 0.5, -0.298623),  # held at -0.5
        (-LOG3, 1.0, -0.481347),  # not held: 0.201377 - 0.682724
    ],
)
def test_positive_unlabelled_loss_by_hand(learner: float, margin: float, expected: float) -> None:  # K1
    loss = pugail_loss(logit(LOG3), logit(learner), ONE, ONE, 0.7, margin)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_positive_unlabelled_loss_weighs_rows() -> None:
    # Two equal expert rows of weight 1/2 count as one half; the learner's rows as they are.
    halved = pugail_loss(logit(LOG3, LOG3), logit(LOG3, LOG3), logit(0.5, 0.5), logit(1.0, 1.0), 0.7, 0.0)
    assert halved.item() == pytest.approx(0.5 * 0.201377 + 1.386294 - 0.5 * 0.970406, abs=1e-5)


def test_positive_unlabelled_loss_separates_in_the_right_direction() -> None:  # K1
    logits = torch.zeros(1, 2, requires_grad=True)  # the expert's, the learner's
    optimiser = torch.optim.SGD([logits], 0.5)
    for _ in range(50):
        optimiser.zero_grad()
        pugail_loss(logits[:, :1], logits[:, 1:], ONE, ONE, 0.7, 0.0).sum().backward()
        optimiser.step()
    expert, learner = logits[0].tolist()
    assert expert > 1 and learner < expert - 1


@pytest.mark.parametrize(("loss_function", "reward_function"), [("BCE", "AIRL"), ("Mixup", "GAIL"), ("PUGAIL", "AIRL")])
def test_separable_demonstrations_are_rewarded_more(loss_function: str, reward_function: str) -> None:  # K1
    gail = make_gail(model={"reward_function": reward_function}, loss_function=loss_function, weight_decay=0.0)
    policy = make_policy()
    expert, learner = (make_batch(size=16, seed=s, observations=torch.randn(1, 16, 3) + s) for s in (2, -2))
    for _ in range(40):
        metrics = gail.update(learner, expert, policy)
    found = gail.diagnose(learner, expert, policy)
    assert found["diagnosis/logit_gap"] > 0.5
    assert found["diagnosis/expert_reward"] > found["diagnosis/learner_reward"]
    assert found["diagnosis/expert_accuracy"] > 0.9
    assert metrics["discriminator/loss"].isfinite().all()


def test_mixup_by_hand() -> None:
    # D = 0: log 2 whatever the share; D = log 3, share 3/4: log 4 - 0.75 log 3 = 0.562335, halved by its weight.
    loss = mixup_loss(logit(0.0, LOG3), logit(0.25, 0.75), logit(1.0, 0.5))
    assert loss.item() == pytest.approx((0.693147 + 0.281168) / 2, abs=1e-5)
    # eps BCE(D, 1) + (1 - eps) BCE(D, 0) = 0.75 log 4/3 + 0.25 log 4.
    assert 0.75 * math.log(4 / 3) + 0.25 * math.log(4) == pytest.approx(0.562335, abs=1e-6)
    ends = [mixup_loss(logit(1.3), logit(share), ONE).item() for share in (1.0, 0.0)]
    assert ends == pytest.approx([binary_cross_entropy(logit(1.3), label, ONE).item() for label in (1.0, 0.0)])


def test_entropy_by_hand() -> None:
    # H(1/2) = log 2; H(3/4) = 0.75 log 4/3 + 0.25 log 4 = 0.562335; weights 1 and 1/2.
    entropy = bernoulli_entropy(logit(0.0, LOG3), logit(1.0, 0.5))
    assert entropy.item() == pytest.approx((0.693147 + 0.281168) / 2, abs=1e-5)
    assert bernoulli_entropy(logit(200.0, -200.0), logit(1.0, 1.0)).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("shaping", [False, True])
def test_interpolation_mixes_row_by_row_every_field_that_is_read(shaping: bool) -> None:
    gail = make_gail((0, 1), model={"reward_shaping": shaping, "subtract_log_policy": shaping})
    expert, learner = (make_batch(2, 3).map(partial(torch.full_like, fill_value=value)) for value in (1.0, 5.0))
    share = torch.tensor([[0.0, 0.25, 1.0], [0.5, 0.0, 1.0]])
    mixed = gail._between(expert, learner, share)
    expected = 5 - 4 * share  # the share is the expert's
    read = {"observations", "actions", "weights"}
    read |= {"next_observations", "terminated", "absorbing"} if shaping else set()
    for name in FIELDS:
        column = getattr(mixed, name)
        assert column.shape == getattr(expert, name).shape
        if name in read:
            mixture = expected.unsqueeze(-1).expand_as(column) if column.dim() == 3 else expected
            assert torch.equal(column, mixture), name
        else:
            assert column.isnan().all(), name
