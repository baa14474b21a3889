"""Adam with a run axis, and PyTorch's own without its compiler."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-5


class AdamW(torch.optim.AdamW):
    """PyTorch's, whose methods are wrapped so that `torch.compile` leaves them alone; here they are not.

    The wrappers import the compiler, which takes as long as the rest of PyTorch, and nothing here is compiled.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))  # the wrapper that is gone does this, too

    def _accelerator_graph_capture_health_check(self) -> None:
        """Nothing is captured here, and to ask would begin to use the first GPU in runs on the CPU, too."""


class RunAdam:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) for parameters whose first axis is runs.

    What an ordinary optimiser has once is here per run: the norm by which gradients are clipped, the count of steps for
    the bias correction, and whether the run takes this step at all. A run that does not keeps its moments, too.

    Parameters are changed where they lie: nothing may replace their memory afterwards, as `module.to` would.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], max_norm: float, weight_decay: float = 0.0) -> None:
        self.max_norm, self.weight_decay = max_norm, weight_decay
        runs, device = parameters[0].shape[0], parameters[0].device
        self.sizes = [parameter[0].numel() for parameter in parameters]
        self.steps = torch.zeros(runs, 1, device=device)
        self.first = torch.zeros(runs, sum(self.sizes), device=device)  # moments of all parameters, side by side
        self.second = torch.zeros_like(self.first)
        # Of each run, and of each of its parameters: views.
        self.parameters = [[parameter.data[run].view(-1) for parameter in parameters] for run in range(runs)]
        self.moments = [self._split(moments) for moments in (self.first, self.second)]
        self.counts = [[count] * len(parameters) for count in self.steps.view(-1)]

    def _split(self, joined: Float[Tensor, "runs parameter"]) -> list[tuple[Tensor, ...]]:
        return [row.split(self.sizes) for row in joined]

    @torch.no_grad()
    def step(
        self, gradients: Sequence[Tensor], rate: float, active: Bool[Tensor, " runs"] | None = None
    ) -> Float[Tensor, " runs"]:
        """One step of the active runs (None: of all). Returns the norms of all runs' gradients before clipping."""
        joined = torch.cat([gradient.flatten(1) for gradient in gradients], 1)
        norms: Tensor = torch.linalg.vector_norm(joined, dim=1)
        joined *= (self.max_norm / (norms + 1e-6)).clamp_max_(1.0).unsqueeze(1)
        self.steps += 1.0 if active is None else active.unsqueeze(1)
        taking = range(len(self.counts)) if active is None else active.nonzero().flatten().tolist()
        if not taking:
            return norms
        of_runs: list[Any] = [self.parameters, self._split(joined), *self.moments, self.counts]
        parameters, found, first, second, counts = ([t for run in taking for t in of[run]] for of in of_runs)
        torch._fused_adamw_(
            parameters,
            found,
            first,
            second,
            [],
            counts,
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
        return norms

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "first": self.first, "second": self.second}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)
