"""Random expert distillation (Wang et al. 2019, arXiv:1905.06750): rewards from the support of the demonstrations.

A predictor learns what a fixed random network says of the expert's rows. Elsewhere it is wrong, and that is the cost.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.base import Context, ImitationConfig, ImitationModule, Metrics, descend
from algorithms.imitation.pretraining import PretrainingConfig, over_all_rows, separation_warning, weighted_quantile
from algorithms.optimisers import AdamW
from conf.fields import ranged
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from models.actors import Policy
from models.mlp import MLP, MLPConfig
from models.streams import Streams

SMALLEST_ERROR = 1e-12  # a bandwidth stays finite also where the predictor is perfect
LOWEST_REWARD = 0.1  # of demonstrations, on average; a measured bandwidth gives half of those learned from exp(-1)


@dataclass
class REDModelConfig(MLPConfig):
    """Of both networks; dropout is the predictor's alone."""

    hidden_size: int = ranged(32, 1)
    depth: int = ranged(1, 1)


@dataclass
class REDConfig(ImitationConfig):
    """Defaults: Arulkumaran & Ogawa Lillrank (2021)."""

    model: REDModelConfig = field(default_factory=REDModelConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    learning_rate: float = ranged(3e-5, 0, open_low=True)
    weight_decay: float = ranged(0.0, 0)
    reward_bandwidth_scale: float | None = ranged(None, 0, open_low=True)  # sigma_1; null: measured


def distillation_error(
    predicted: Float[Tensor, "runs batch feature"], target: Float[Tensor, "runs batch feature"]
) -> Float[Tensor, "runs batch"]:
    """mean_k (f^(x) - f(x))_k^2, of matched rows."""
    return (predicted - target).square().mean(-1)


class RED(ImitationModule):
    """Rewards a row by exp(-sigma_1 error), in (0, 1], where the error is that of a distilled random network."""

    config_class = REDConfig
    config: REDConfig
    bandwidth: Float[Tensor, " runs"]  # sigma_1; 0 until pretraining is over

    def __init__(self, config: REDConfig, context: Context) -> None:
        super().__init__()
        self.config = config
        self.pretraining_iterations = config.pretraining.iterations
        self.streams = Streams(context.seeds, "imitation", context.device)
        runs = len(context.seeds)
        size = context.observation_size + (0 if config.state_only else context.action_size)
        # In float32 whatever the precision: errors are small differences of large numbers.
        self.predictor = MLP((runs,), size, size, config.model, self.streams)
        plain = dataclasses.replace(config.model, input_dropout=0.0, dropout=0.0)
        self.target = MLP((runs,), size, size, plain, self.streams).requires_grad_(False)
        self.optimiser = AdamW(
            self.predictor.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.register_buffer("bandwidth", torch.zeros(runs, device=context.device))

    def pretrain(self, expert_batch: Batch) -> Metrics:
        self.predictor.train()
        loss = (expert_batch.weights * self._errors(expert_batch)).mean(-1)
        descend(self.optimiser, loss)
        return {"predictor/loss": loss.detach()}

    @torch.no_grad()
    def finish_pretraining(self, demonstrations: Demonstrations) -> None:
        """Set sigma_1 so that the median expert row earns exp(-1), as the rewards will see it: without dropout."""
        if self.config.reward_bandwidth_scale is not None:
            self.bandwidth.fill_(self.config.reward_bandwidth_scale)
            return
        self.predictor.eval()
        errors = over_all_rows(self._errors, demonstrations, len(self.bandwidth))
        median = weighted_quantile(errors, demonstrations.rows().weights.expand_as(errors), 0.5)
        self.bandwidth = 1 / median.clamp_min(SMALLEST_ERROR)

    @torch.no_grad()
    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        self.predictor.eval()
        return batch.with_rewards(self._rewards(self._errors(batch)))

    @torch.no_grad()
    def diagnose(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        if not self.bandwidth.all():  # behavioural cloning comes first
            return {}
        self.predictor.eval()
        metrics = {"diagnosis/bandwidth": self.bandwidth}
        for name, rows in (("expert", expert_batch), ("learner", batch)):
            errors = self._errors(rows)
            metrics[f"diagnosis/{name}_error"] = errors.mean(-1)
            metrics[f"diagnosis/{name}_reward"] = self._rewards(errors).mean(-1)
        return metrics

    def warning(self, metrics: Metrics) -> str | None:
        advice = "try more imitation.pretraining.iterations, more demonstrations, or another imitation.model"
        return separation_warning(metrics, LOWEST_REWARD, advice)

    def _rewards(self, errors: Float[Tensor, "runs batch"]) -> Float[Tensor, "runs batch"]:
        return torch.exp(-self.bandwidth.unsqueeze(-1) * errors)

    def _errors(self, batch: Batch) -> Float[Tensor, "runs batch"]:
        inputs = batch.observations
        if not self.config.state_only:
            inputs = torch.cat([inputs, batch.carried_out], -1)
        with torch.no_grad():
            target = self.target(inputs)
        return distillation_error(self.predictor(inputs), target)

    def get_extra_state(self) -> dict[str, Any]:
        return {"streams": self.streams.state_dict(), "optimiser": self.optimiser.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.optimiser.load_state_dict(state["optimiser"])
