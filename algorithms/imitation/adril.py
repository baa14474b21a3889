"""Adversarial reward-moment imitation learning, AdRIL (Swamy et al. 2021, arXiv:2103.03236), off-policy.

There is no network: the moment-matching adversary is a table of rewards, one for each row that the learner trains on,
and what it is to be depends on who collected the row, and when. Soft-Q imitation learning, SQIL (Reddy et al. 2020,
arXiv:1905.11108), is the limit `update_freq=0`, in which the adversary never moves.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from algorithms.base import Context, ImitationConfig, ImitationModule, Metrics
from conf.errors import UserError
from conf.fields import choice, ranged
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from models.actors import Policy


@dataclass
class AdRILConfig(ImitationConfig):
    """Defaults: Arulkumaran & Ogawa Lillrank (2021)."""

    mix_expert_data: str = choice("mixed_batch", "none", "mixed_batch", "prefill_memory")
    balanced: bool = True  # mixed_batch: whole batches of demonstrations and of the learner's rows take turns
    update_freq: int = ranged(1250, 0)  # environment steps of a period, F; 0: SQIL

    def check(self) -> None:
        if self.state_only:
            raise UserError(
                "imitation.state_only=true is not allowed with algorithm=AdRIL or SQIL: the learner trains on rows of "
                "demonstrations and needs their actions; expected false, or another algorithm, such as GAIL"
            )
        if self.mix_expert_data == "none":
            raise UserError(
                "imitation.mix_expert_data=none is not allowed with algorithm=AdRIL or SQIL: only rows of "
                "demonstrations among the learner's are rewarded; expected mixed_batch or prefill_memory"
            )


def adril_rewards(
    collected_at: Float[Tensor, "runs batch"],
    learner_trajectories: Int64[Tensor, " runs"],
    expert_trajectories: int,
    step: int,
    update_freq: int,
) -> Float[Tensor, "runs batch"]:
    """1 / n_E for demonstrations; for the learner's rows -1 / n_pi if ceil(t / F) > ceil(k / F), else 0.

    k is the environment step at which a row was collected (negative for demonstrations), t the present `step`, F
    `update_freq`. With F = 0 (SQIL): 1 for demonstrations, 0 for the learner's rows.
    """
    expert = collected_at < 0
    if update_freq == 0:
        return expert.float()
    # The same as the two ceilings, in whole numbers: collected no later than the last step of the period before.
    last_period_end = (step - 1) // update_freq * update_freq
    penalised = ~expert & (collected_at <= last_period_end)
    return expert / expert_trajectories - penalised / learner_trajectories.clamp_min(1).unsqueeze(-1)


class AdRIL(ImitationModule):
    """Rewards demonstrations, and penalises what the learner did in earlier periods.

    Rows are told apart by `collected_at`, so it does not matter how the demonstrations came among them.
    """

    config_class = AdRILConfig
    supports_on_policy = False  # it has to train on rows that it did not collect
    rewards_any_row = False
    config: AdRILConfig
    expert_trajectories: int  # n_E, set by `prepare`
    learner_trajectories: Tensor  # n_pi of each run: episodes that have ended, truly or by a time limit

    def __init__(self, config: AdRILConfig, context: Context) -> None:
        super().__init__()
        self.config = config
        self.step = 0  # t, in environment steps of each run
        self.updates = 0
        counts = torch.zeros(len(context.seeds), dtype=torch.int64, device=context.device)
        self.register_buffer("learner_trajectories", counts)

    def prepare(self, demonstrations: Demonstrations) -> Demonstrations:
        self.expert_trajectories = demonstrations.trajectory_count
        return demonstrations

    def annotate(self, transition: Batch) -> Batch:
        # Counted here and not in the memory, which clears terminations, adds absorbing rows and may be pre-filled.
        self.step = int(transition.collected_at.max())
        ends = torch.maximum(transition.terminated, transition.truncated).sum(-1).long()
        self.learner_trajectories += ends.to(self.learner_trajectories.device)
        return super().annotate(transition)

    def update(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        """Nothing is trained; the metrics describe the learner's rows as they were sampled, before any mixing."""
        self.updates += 1
        rewards = self._rewards(batch)
        own = batch.collected_at >= 0  # not pre-filled
        count = own.sum(-1).clamp_min(1)
        expert_reward = 1 / self.expert_trajectories if self.config.update_freq else 1.0
        return {
            "adril/learner_trajectories": self.learner_trajectories.float(),
            "adril/penalised_share": (rewards < 0).sum(-1) / count,
            "adril/expert_reward": torch.full_like(rewards[:, 0], expert_reward),
            "adril/learner_reward": (rewards * own).sum(-1) / count,
        }

    def mix(self, batch: Batch, expert_batch: Batch) -> Batch:
        """Of whole batches the first is of demonstrations, then every second one."""
        if self.config.mix_expert_data == "mixed_batch" and self.config.balanced:
            return expert_batch if self.updates % 2 else batch
        return super().mix(batch, expert_batch)

    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        return batch.with_rewards(self._rewards(batch))

    def _rewards(self, batch: Batch) -> Float[Tensor, "runs batch"]:
        return adril_rewards(
            batch.collected_at,
            self.learner_trajectories,
            self.expert_trajectories,
            self.step,
            self.config.update_freq,
        )

    def get_extra_state(self) -> dict[str, Any]:
        return {"step": self.step, "updates": self.updates}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.step, self.updates = state["step"], state["updates"]
