"""Generative adversarial imitation learning (Ho & Ermon 2016) for any learner.

With an off-policy learner this is discriminator-actor-critic (Kostrikov et al. 2018); with an on-policy one a batch is
a rollout, and the discriminator takes several steps on smaller batches from the latest rollouts. AIRL (Fu et al. 2018)
and FAIRL (Ghasemipour et al. 2019) are options of it. A high logit means expert, everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from algorithms.base import Context, ImitationConfig, ImitationModule, Metrics
from algorithms.imitation.adversarial import (
    REWARDS,
    Logits,
    Loss,
    bce_loss,
    bernoulli_entropy,
    mixup_loss,
    pugail_loss,
)
from algorithms.optimisers import AdamW
from conf.errors import UserError
from conf.fields import choice, ranged
from memory.batch import FIELDS, Batch, Layout
from memory.demonstrations import Demonstrations
from memory.replay import ReplayMemory
from models.actors import Policy
from models.discriminators import Discriminator, DiscriminatorConfig, DiscriminatorStep
from models.normalisation import RunningNorm
from models.streams import Streams

SATURATED_GAP = 8.0  # between mean logits: probabilities beyond 0.98 on both sides


@dataclass
class GAILConfig(ImitationConfig):
    """Defaults: Arulkumaran & Ogawa Lillrank (2021), whose dropout was configured but never applied, hence 0 here."""

    model: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    learning_rate: float = ranged(3e-5, 0, open_low=True)
    weight_decay: float = ranged(10.0, 0)
    grad_penalty: float = ranged(1.0, 0)  # weight of the zero-centred gradient penalty
    spectral_norm: bool = True
    entropy_bonus: float = ranged(0.0, 0)  # weight of the entropy of the discriminator's decisions
    loss_function: str = choice("BCE", "BCE", "Mixup", "PUGAIL")
    mixup_alpha: float = ranged(1.0, 0, open_low=True)
    pos_class_prior: float = ranged(0.7, 0, 1)  # PUGAIL: share of expert-like rows among the learner's
    nonnegative_margin: float = ranged(0.0, 0)  # PUGAIL: how far below zero the negative risk may fall
    updates: int = ranged(1, 1)  # steps of the discriminator for each batch of the learner
    batch_size: int = ranged(0, 0)  # rows of either side in such a step; 0: the learner's batch, and as many
    buffer_size: int = ranged(0, 0)  # the learner's latest rows, from which those are drawn
    normalise_rewards: bool = False  # by the running mean and variance of the rewards given so far

    def check(self) -> None:
        if (self.batch_size > 0) != (self.buffer_size > 0):
            raise UserError(
                f"imitation.batch_size={self.batch_size} and imitation.buffer_size={self.buffer_size} belong together: "
                "expected both 0 or both above"
            )


def read_fields(config: GAILConfig) -> tuple[str, ...]:
    """Of a batch, by a step of the discriminator."""
    shaping = ("next_observations", "terminated") if config.model.reward_shaping else ()
    policy = ("absorbing",) if config.model.subtract_log_policy else ()
    return ("observations", "actions", "weights", *shaping, *policy)


def combined(
    expert_batch: Batch, batch: Batch, fields: Sequence[str], combine: Callable[[Tensor, Tensor], Tensor]
) -> Batch:
    """These fields of both batches made one; the others, which nothing may read, are NaN."""
    found = {name: combine(getattr(expert_batch, name), getattr(batch, name)) for name in fields}
    nothing = torch.full_like(found["weights"][:1, :1], torch.nan).expand_as(found["weights"])
    wide = nothing.unsqueeze(-1).expand(-1, -1, batch.observations.shape[-1])
    unread = {name: wide if name == "next_observations" else nothing for name in FIELDS}
    return Batch(**(unread | found))


class GAIL(ImitationModule):
    """Trains a discriminator on the learner's own batches, and rewards what it takes for the expert's."""

    config_class = GAILConfig
    config: GAILConfig

    def __init__(self, config: GAILConfig, context: Context) -> None:
        super().__init__()
        self.config = config
        self.streams = Streams(context.seeds, "imitation", context.device)
        self.discriminator = Discriminator(
            context.observation_size,
            context.action_size,
            config.model,
            self.streams,
            state_only=config.state_only,
            discount=context.discount,
            spectral_norm=config.spectral_norm,
            absorbing=context.absorbing,
        )
        self.optimiser = AdamW(
            self.discriminator.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.fields = read_fields(config)
        self.reward_function = REWARDS[config.model.reward_function]
        self.reward_normaliser = (
            RunningNorm(len(context.seeds), 1, context.device) if config.normalise_rewards else None
        )
        self.recent: ReplayMemory | None = None
        if config.buffer_size:
            layout = Layout(context.observation_size, context.action_size)
            self.recent = ReplayMemory(layout, config.buffer_size, context.seeds, context.device, "imitation/recent")
        self.demonstrations: Demonstrations | None = None

    def prepare(self, demonstrations: Demonstrations) -> Demonstrations:
        if demonstrations.state_only and self.config.model.subtract_log_policy:
            raise UserError(
                "imitation.model.subtract_log_policy=true (as algorithm=AIRL sets it) asks for the probability of the "
                "demonstrations' actions, and these have none: expected false, or demonstrations with actions"
            )
        self.demonstrations = demonstrations
        return demonstrations

    def update(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        if self.config.mix_expert_data == "prefill_memory":
            batch = learners_own(batch)
        if self.recent is not None:
            # In random order: whatever is left out or overwritten is a fair sample of all environments and times.
            order = self.streams.uniform(batch.shape[1]).argsort(-1)
            self.recent.add(batch.map(lambda column: _taken(column, order)))
        found = [self._step(*self._draw(batch, expert_batch), policy) for _ in range(self.config.updates)]
        if self.reward_normaliser is not None:
            with torch.no_grad():
                self.discriminator.eval()
                self.reward_normaliser.update(self._rewards(batch, policy).unsqueeze(-1))
        if len(found) == 1:
            return found[0]
        return {name: torch.stack([metrics[name] for metrics in found]).mean(0) for name in found[0]}

    def _draw(self, batch: Batch, expert_batch: Batch) -> tuple[Batch, Batch]:
        """What the discriminator is trained on: the learner's rows, and demonstrations."""
        size = self.config.batch_size
        if self.recent is None:
            return batch, expert_batch
        assert self.demonstrations is not None
        return self.recent.sample(size), self.demonstrations.sample(size)

    @torch.no_grad()
    def _step(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        self.discriminator.train()
        for rows in (expert_batch, batch):
            self.discriminator.observe(rows)
        step = DiscriminatorStep(self.discriminator)
        loss, metrics = self._classify(step, batch, expert_batch, policy)
        if self.config.grad_penalty > 0:
            between = self._between(expert_batch, batch, self.streams.uniform(batch.shape[1]))
            penalty = step.penalise(between, self.config.grad_penalty)
            loss = loss + self.config.grad_penalty * penalty
            metrics["discriminator/grad_penalty"] = penalty
        step.assign()
        self.optimiser.step()
        return metrics | {"discriminator/loss": loss}

    def _classify(
        self, step: DiscriminatorStep, batch: Batch, expert_batch: Batch, policy: Policy
    ) -> tuple[Loss, Metrics]:
        """The loss, whose gradients are added to the step's."""
        share = None
        if self.config.loss_function == "Mixup":
            share = self.streams.beta(self.config.mixup_alpha, batch.shape[1])
            rows = self._between(expert_batch, batch, share)
        else:
            rows = self._joined(expert_batch, batch)
        log_probs = self._log_probs(rows, policy)
        logits, terms = step.logits(rows, log_probs)
        with torch.enable_grad():  # from here to the loss
            loss = self._loss(logits.requires_grad_(), rows.weights, share)
            (by_logits,) = torch.autograd.grad(loss.sum(), logits)
        step.pull_back(terms, by_logits)
        loss, logits = loss.detach(), logits.detach()
        if share is not None:
            return loss, {}
        rewards = self._rewards_of(logits, log_probs).chunk(2, -1)
        return loss, _comparison("discriminator", logits.chunk(2, -1), rewards)

    def _loss(self, logits: Logits, weights: Logits, expert_share: Logits | None) -> Loss:
        """Of mixed rows, whose shares are given, or of the expert's rows and the learner's behind them."""
        config = self.config
        if expert_share is not None:
            loss = mixup_loss(logits, expert_share, weights)
            return loss - config.entropy_bonus * bernoulli_entropy(logits, weights) if config.entropy_bonus else loss
        expert_logits, learner_logits = logits.chunk(2, -1)
        expert_weights, learner_weights = weights.chunk(2, -1)
        sides = (expert_logits, learner_logits, expert_weights, learner_weights)
        if config.loss_function == "PUGAIL":
            loss = pugail_loss(*sides, config.pos_class_prior, config.nonnegative_margin)
        else:
            loss = bce_loss(*sides)
        if config.entropy_bonus:
            entropy = bernoulli_entropy(expert_logits, expert_weights)
            loss = loss - config.entropy_bonus * (entropy + bernoulli_entropy(learner_logits, learner_weights))
        return loss

    def _joined(self, expert_batch: Batch, batch: Batch) -> Batch:
        """Demonstrations, and the learner's rows behind them, in the fields that are read."""
        return combined(expert_batch, batch, self.fields, lambda expert, learner: torch.cat([expert, learner], 1))

    def _between(self, expert_batch: Batch, batch: Batch, expert_share: Logits) -> Batch:
        """Rows between demonstrations and the learner's, in the fields that are read."""
        wide = expert_share.unsqueeze(-1)
        return combined(
            expert_batch,
            batch,
            self.fields,
            lambda expert, learner: torch.lerp(learner, expert, wide if expert.dim() == 3 else expert_share),
        )

    def _rewards_of(self, logits: Logits, log_probs: Logits | None) -> Logits:
        """Before normalisation."""
        without = self.config.model.reward_function == "f" and log_probs is not None
        return self.reward_function(logits + log_probs if without else logits)  # type: ignore[operator]  # both are there

    def _rewards(self, batch: Batch, policy: Policy) -> Logits:
        log_probs = None if self.config.model.reward_function == "f" else self._log_probs(batch, policy)
        return self.reward_function(self.discriminator(batch, log_probs))

    @torch.no_grad()
    def _log_probs(self, batch: Batch, policy: Policy) -> Logits | None:
        """log pi(a|s), where it is to be subtracted; 0 in the absorbing state, where the policy chooses nothing."""
        if not self.config.model.subtract_log_policy:
            return None
        training = policy.training
        policy.eval()  # its dropout masks are the learner's own
        log_probs = policy.log_prob(batch.observations, batch.actions)
        policy.train(training)
        return log_probs * (1 - batch.absorbing)

    @torch.no_grad()
    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        self.discriminator.eval()
        rewards = self._rewards(batch, policy)
        if self.reward_normaliser is not None:
            rewards = self.reward_normaliser(rewards.unsqueeze(-1)).squeeze(-1)
        return batch.with_rewards(rewards)

    @torch.no_grad()
    def diagnose(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        self.discriminator.eval()
        logits, rewards = [], []
        for rows in (expert_batch, batch):
            log_probs = self._log_probs(rows, policy)
            logits.append(self.discriminator(rows, log_probs))
            rewards.append(self._rewards_of(logits[-1], log_probs))
        return _comparison("diagnosis", logits, rewards)

    def warning(self, metrics: Metrics) -> str | None:
        if self.config.model.subtract_log_policy:
            return None  # evaluation plays the policy's most likely actions, whose logits are low by definition
        accuracy = torch.minimum(metrics["diagnosis/expert_accuracy"], metrics["diagnosis/learner_accuracy"])
        saturated = (accuracy >= 0.99) & (metrics["diagnosis/logit_gap"] >= SATURATED_GAP)
        if not saturated.any():
            return None
        gap = metrics["diagnosis/logit_gap"][saturated].max()
        return (
            f"the discriminator is saturated (accuracy above 0.99 in evaluation, logit gap {gap:.1f}): its rewards "
            "carry little information; try a larger imitation.grad_penalty, imitation.spectral_norm=true or a smaller "
            "imitation.learning_rate"
        )

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "streams": self.streams.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "recent": self.recent.state_dict() if self.recent else None,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.recent:
            self.recent.load_state_dict(state["recent"])


def learners_own(batch: Batch) -> Batch:
    """The learner's rows, again and again in the places of demonstrations among them, which are not to be told from
    demonstrations. Where a run has no others, these stand for the learner.
    """
    foreign = batch.collected_at < 0
    count = (~foreign).sum(-1, keepdim=True)
    places = torch.arange(foreign.shape[-1], device=foreign.device) % torch.where(count > 0, count, foreign.shape[-1])
    order = foreign.byte().argsort(dim=-1, stable=True).gather(-1, places)
    return batch.map(lambda column: _taken(column, order))


def _taken(column: Tensor, order: Int64[Tensor, "runs rows"]) -> Tensor:
    """Rows of a column, [runs, rows] or [runs, rows, feature], in each run's order."""
    return torch.take_along_dim(column, order.unsqueeze(-1) if column.dim() == 3 else order, 1)


def _comparison(group: str, logits: Sequence[Tensor], rewards: Sequence[Tensor]) -> Metrics:
    """Of demonstrations and of the learner's rows, in this order: [runs, rows] each."""
    right = (logits[0] > 0, logits[1] < 0)
    means = [torch.stack(side).mean(-1).unbind() for side in zip(right, logits, rewards, strict=True)]
    (expert_accuracy, expert_logit, expert_reward), (learner_accuracy, learner_logit, learner_reward) = means
    return {
        f"{group}/expert_accuracy": expert_accuracy,
        f"{group}/learner_accuracy": learner_accuracy,
        f"{group}/logit_gap": expert_logit - learner_logit,
        f"{group}/expert_reward": expert_reward,
        f"{group}/learner_reward": learner_reward,
    }
