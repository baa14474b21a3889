"""Running normalisation with statistics of each run's own."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-5  # added to variances


class RunningNorm(nn.Module):
    """Standardises features by the mean and variance of all rows seen so far (Chan et al. 1979, for whole batches).

    Rows may be longer than the `features` that it knows: what lies behind them, an absorbing bit, stays as it is.
    Statistics change in `update` alone, never in a forward pass, so that acting, evaluating and relabelling leave them
    as they are, in training mode and out of it. Before the first update nothing is changed. They are kept in 64 bits:
    after many rows, 32 no longer resolve what one more changes.
    """

    count: Tensor  # [runs]
    mean: Tensor  # [runs, 1, features]
    variance: Tensor  # [runs, 1, features], not Bessel-corrected

    def __init__(self, runs: int, features: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(runs, dtype=torch.float64, device=device))
        self.register_buffer("mean", torch.zeros(runs, 1, features, dtype=torch.float64, device=device))
        self.register_buffer("variance", torch.full_like(self.mean, 1 - EPSILON))

    @property
    def rates(self) -> Float[Tensor, "runs 1 features"]:
        """By which what it knows of a row is multiplied."""
        return torch.rsqrt(self.variance + EPSILON)

    def forward(self, rows: Float[Tensor, "runs batch feature"]) -> Float[Tensor, "runs batch feature"]:
        features = self.mean.shape[-1]
        known = (rows[..., :features] - self.mean.to(rows.dtype)) * self.rates.to(rows.dtype)
        return known if rows.shape[-1] == features else torch.cat([known, rows[..., features:]], -1)

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "runs batch feature"]) -> None:
        """Take these rows into the statistics, as many of each run."""
        rows = rows[..., : self.mean.shape[-1]].double()
        new = rows.shape[1]
        total = self.count + new
        share = (new / total).view(-1, 1, 1)  # of the new rows
        variance, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
        difference = mean - self.mean
        # Squared deviations of both parts, and those of the parts' means.
        self.variance = torch.where(
            self.count.view(-1, 1, 1) > 0,
            torch.lerp(self.variance, variance, share) + share * (1 - share) * difference.square(),
            variance,
        )
        self.mean = self.mean + share * difference
        self.count = total
