"""From a configuration to the parts of a run."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from algorithms import LEARNERS
from algorithms.base import Context, ImitationModule, Learner
from algorithms.imitation.dagger import DAgger
from conf.errors import UserError
from environments.construction import Spaces, spaces_of
from environments.formats import read_demonstrations
from environments.vector import VectorEnvironment
from memory.demonstrations import Demonstrations
from training.aggregation import Aggregation
from training.config import Config, imitation_class, learner_class
from training.experts import make_expert
from training.phases import CloningPhase, ImitationPretraining, Interaction, Phase
from training.precision import DTYPES, fastest_precision

BUNDLED = Path(__file__).resolve().parents[1] / "environments" / "demonstrations"


@dataclass(frozen=True)
class Parts:
    """Everything that a run consists of."""

    spaces: Spaces
    context: Context
    learner: Learner
    imitation: ImitationModule
    demonstrations: Demonstrations | None
    phases: list[Phase]

    @property
    def demonstration_return(self) -> float | None:
        """Mean return of the demonstrations that are used, or of an expert that labels, alone; None where unknown."""
        for phase in self.phases:
            if isinstance(phase, Aggregation):
                return phase.expert_return
        return self.demonstrations.mean_return if self.demonstrations else None


def use_device(name: str) -> torch.device:
    """The device; a GPU with a number also becomes the one that is meant where none is named."""
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def build(config: Config) -> Parts:
    """Make everything that the configuration asks for. Nothing is written and nothing trained.

    Raises:
        UserError: an environment, a device or a demonstration file is not what the run needs.
    """
    device = use_device(config.device)
    spaces = spaces_of(config.env.id, config.imitation.absorbing)
    for warning in _warnings(config, device, spaces):
        print(f"warning: {warning}", file=sys.stderr)
    check_spaces(config, spaces)
    reinforcement, imitation_options = config.reinforcement, config.imitation
    demonstrations = None
    if needs_demonstrations(config):
        spaces, demonstrations = load_demonstrations(config, spaces)
    elif config.env.normalise_observations:
        reinforcement = replace(reinforcement, normalise_observations=True)  # the learner's running statistics
    context = Context(
        seeds=config.seeds,
        observation_size=spaces.learned_size,
        action_size=spaces.action_size,
        horizon=spaces.horizon,
        discount=reinforcement.discount,
        absorbing_state=spaces.absorbing_state if spaces.absorbing else None,
        device=device,
        dtype=DTYPES[config.precision],
        num_envs=config.env.num_envs,
        discrete=spaces.discrete,
    )
    learner = learner_class(config)(reinforcement, config.training, imitation_options, context)
    imitation = imitation_class(config)(imitation_options, context)
    if demonstrations:
        demonstrations = imitation.prepare(demonstrations)
    phases: list[Phase] = []
    if demonstrations and config.bc_pretraining.used:
        options, batch_size = config.bc_pretraining, config.training.batch_size
        phases.append(CloningPhase(learner.policy, demonstrations, options, batch_size, config.seeds))
    if demonstrations and config.steps:
        phases.append(ImitationPretraining(imitation, demonstrations, config.training.batch_size))
    if config.steps and isinstance(imitation, DAgger):
        phases.append(_aggregation(config, spaces, learner, imitation))
    elif config.steps:
        phases.append(_interaction(config, spaces, learner, imitation, demonstrations))
    return Parts(spaces, context, learner, imitation, demonstrations, phases)


def _warnings(config: Config, device: torch.device, spaces: Spaces) -> Iterator[str]:
    """What is allowed, but perhaps not meant."""
    first = config.training.interval if learner_class(config).on_policy else config.training.start
    if 0 < config.steps < first and imitation_class(config).provides_rewards:
        yield f"steps={config.steps} update nothing: the first update is at step {first}"
    if config.precision == "bf16" and fastest_precision(device) != "bf16":
        yield f"precision=bf16 is emulated on this {device.type}, and slower than fp32"
    if config.env.demonstrations is not None and not needs_demonstrations(config):
        yield f"env.demonstrations={config.env.demonstrations}: algorithm={config.algorithm} uses no demonstrations"
    if spaces.horizon is None:
        yield f"env.id={config.env.id} has no time limit (max_episode_steps): evaluations wait for ends of episodes"


def _interaction(
    config: Config,
    spaces: Spaces,
    learner: Learner,
    imitation: ImitationModule,
    demonstrations: Demonstrations | None,
) -> Interaction:
    prefill = demonstrations.rows() if demonstrations and config.imitation.mix_expert_data == "prefill_memory" else None
    memory = learner.make_memory(config.memory, config.steps, prefill.shape[1] if prefill else 0)
    if prefill:
        memory.prefill(prefill)
    envs = VectorEnvironment(config.env, spaces, config.seeds)
    return Interaction(envs, learner, imitation, memory, demonstrations, config.steps)


def _aggregation(config: Config, spaces: Spaces, learner: Learner, imitation: DAgger) -> Aggregation:
    own = imitation.config
    expert = make_expert(own.expert, own.expert_index, spaces, config.env.id if own.expert_adapt else None)
    return Aggregation(
        imitation,
        learner.policy,
        expert,
        config.env,
        spaces,
        config.seeds,
        torch.device(config.device),
        config.training.batch_size,
        config.steps,
    )


def check_spaces(config: Config, spaces: Spaces) -> None:
    """What discrete actions exclude.

    Raises:
        UserError: something that was asked for needs continuous actions.
    """
    if not spaces.discrete:
        return
    learner = learner_class(config)
    if not learner.supports_discrete_actions:
        able = ", ".join(name for name, c in LEARNERS.items() if c.supports_discrete_actions)
        raise UserError(
            f"env.id={config.env.id} has discrete actions, but this learner needs continuous ones: "
            f"expected learner={able}"
        )
    used = {
        "bc_pretraining.loss_function": config.bc_pretraining.loss_function,
        "imitation.bc_aux_loss_function": config.imitation.bc_aux_loss_function,
    }
    for key, value in used.items():
        if value == "squared_error":
            raise UserError(f"{key}={value} needs continuous actions, and env.id={config.env.id} has discrete ones")


def needs_demonstrations(config: Config) -> bool:
    return imitation_class(config).uses_demonstrations or config.bc_pretraining.used or config.imitation.bc_aux_loss


def demonstrations_path(config: Config) -> Path:
    """The file that was asked for, or the bundled one of the environment.

    Raises:
        UserError: there is no bundled set.
    """
    if config.env.demonstrations is not None:
        return Path(config.env.demonstrations)
    path = BUNDLED / f"{config.env.name}.hdf5"
    if not path.is_file():
        bundled = ", ".join(sorted(p.stem for p in BUNDLED.glob("*.hdf5")))
        raise UserError(
            f"env.demonstrations: there is no bundled set for env={config.env.name} (bundled: {bundled}); "
            "name a file or folder with env.demonstrations=<path>"
        )
    return path


def load_demonstrations(config: Config, spaces: Spaces) -> tuple[Spaces, Demonstrations]:
    """The demonstrations, and the spaces with the normalisation that they were asked to define."""
    path = demonstrations_path(config)
    make = partial(
        Demonstrations,
        read_demonstrations(path, config.env.id),
        limit=config.imitation.trajectories,
        subsample=config.imitation.subsample,
        seeds=config.seeds,
        device=torch.device(config.device),
    )
    demonstrations = make(spaces=spaces)
    if config.env.normalise_observations:
        statistics = demonstrations.observation_statistics()
        del demonstrations  # a large set does not fit twice
        spaces = spaces.normalised(*statistics)
        demonstrations = make(spaces=spaces)
    if demonstrations.state_only and not config.imitation.state_only:
        advice = "set imitation.state_only=true, or " if imitation_class(config).provides_rewards else ""
        raise UserError(f"env.demonstrations={path} holds no actions: {advice}give a file with actions")
    if demonstrations.clipped_share:
        share = f"{demonstrations.clipped_share:.1%} of the action values in {path}"
        print(f"warning: {share} lie outside the action space and are clipped", file=sys.stderr)
    return spaces, demonstrations
