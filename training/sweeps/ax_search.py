"""Ax's client behind a narrow door: propose, complete, fail, and a state that can be kept in a file."""

import json
import logging
import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

from conf.errors import UserError
from training.sweeps.launchers import INSTALL
from training.sweeps.space import Choice, Parameter, Space, Value

METRIC = "score"


def require_ax() -> None:
    """Raises UserError where Ax is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ax.api.client  # noqa: F401
    except ImportError as error:
        raise UserError(f"optimisation needs Ax: {INSTALL}") from error


class AxSearch:
    """Maximises a noisy score over a space."""

    def __init__(self, client: Any) -> None:
        logging.getLogger("ax.api.client").setLevel(logging.WARNING)  # it would tell of every trial
        self.client = client

    @classmethod
    def begin(cls, space: Space, seed: int) -> "AxSearch":
        from ax.api.client import Client

        client = Client(random_seed=seed)
        client.configure_experiment([parameter_config(parameter) for parameter in space.parameters])
        client.configure_optimization(METRIC)  # maximised: a minus before the name would minimise
        return cls(client)

    @classmethod
    def load(cls, state: dict[str, Any]) -> "AxSearch":
        """Raises UserError where the state is damaged."""
        from ax.api.client import Client

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ax.json"
            path.write_text(json.dumps(state))
            try:
                return cls(Client.load_from_json_file(str(path)))
            except Exception as error:  # of many kinds
                raise UserError(f"the state of the optimisation is damaged ({type(error).__name__})") from error

    def state(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ax.json"
            self.client.save_to_json_file(str(path))
            content: dict[str, Any] = json.loads(path.read_text())
            return content

    def propose(self, count: int) -> list[tuple[int, dict[str, Value]]]:
        """Number and values of each new trial; fewer than `count`, or none, where Ax has no more to suggest."""
        from ax.exceptions.core import AxError

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                trials = self.client.get_next_trials(max_trials=count)
            except AxError as error:  # an exhausted search space, too
                logging.getLogger(__name__).warning("no more trials: %s", error)
                return []
        return [(index, dict(values)) for index, values in trials.items()]

    def complete(self, trial: int, mean: float, standard_error: float) -> None:
        """`standard_error`: NaN where it is not known; Ax then infers the noise."""
        measured = mean if math.isnan(standard_error) else (mean, standard_error)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.client.complete_trial(trial, {METRIC: measured})

    def fail(self, trial: int, reason: str) -> None:
        self.client.mark_trial_failed(trial, reason)


def parameter_config(parameter: Parameter) -> Any:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    if isinstance(parameter, Choice):
        kind: Any = {bool: "bool", int: "int", float: "float", str: "str"}[type(parameter.values[0])]
        values: Any = list(parameter.values)
        return ChoiceParameterConfig(parameter.key, values, kind, is_ordered=kind in ("int", "float"))
    kind = "int" if parameter.whole else "float"
    bounds = (int(parameter.low), int(parameter.high)) if parameter.whole else (parameter.low, parameter.high)
    return RangeParameterConfig(parameter.key, bounds, kind, scaling="log" if parameter.logarithmic else "linear")
