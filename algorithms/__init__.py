"""The registry: one line per learner and per imitation module."""

from algorithms.base import ImitationModule, Learner
from algorithms.behavioural_cloning import CloningOnly
from algorithms.imitation.adril import AdRIL
from algorithms.imitation.constant import Constant
from algorithms.imitation.dagger import DAgger
from algorithms.imitation.dril import DRIL
from algorithms.imitation.gail import GAIL
from algorithms.imitation.gmmil import GMMIL
from algorithms.imitation.none import NoImitation
from algorithms.imitation.pwil import PWIL
from algorithms.imitation.red import RED
from algorithms.learners.ppo import PPO
from algorithms.learners.sac import SAC

LEARNERS: dict[str, type[Learner]] = {
    "sac": SAC,
    "ppo": PPO,
}

IMITATION_MODULES: dict[str, type[ImitationModule]] = {
    "none": NoImitation,
    "cloning": CloningOnly,
    "gail": GAIL,
    "gmmil": GMMIL,
    "pwil": PWIL,
    "adril": AdRIL,
    "constant": Constant,
    "dril": DRIL,
    "red": RED,
    "dagger": DAgger,
}
