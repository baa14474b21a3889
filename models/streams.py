"""Random numbers with one generator per run."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def stream_seed(seed: int, name: str) -> int:
    """A seed of 63 bits for the stream `name` of run `seed`; streams of different names are independent."""
    return _hashed(f"{seed}/{name}".encode())


def _hashed(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1


class Streams:
    """One stream per run, so that a seed draws the same numbers alone and beside others.

    Every method returns a tensor of shape [runs, *shape].
    """

    def __init__(self, seeds: Sequence[int], name: str, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device).manual_seed(stream_seed(seed, name)) for seed in seeds]

    def normal(self, *shape: int) -> Tensor:
        out = torch.empty(len(self.generators), *shape, device=self.device)
        for row, generator in zip(out, self.generators, strict=True):
            row.normal_(generator=generator)
        return out

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1)."""
        out = torch.empty(len(self.generators), *shape, device=self.device)
        for row, generator in zip(out, self.generators, strict=True):
            row.uniform_(generator=generator)
        return out

    def integers(self, high: Sequence[int] | int, *shape: int) -> Tensor:
        """Integers below `high`, which may differ between runs."""
        highs = [high] * len(self.generators) if isinstance(high, int) else high
        out = torch.empty(len(self.generators), *shape, dtype=torch.int64, device=self.device)
        for row, generator, limit in zip(out, self.generators, highs, strict=True):
            row.random_(0, limit, generator=generator)
        return out

    def beta(self, concentration: float, *shape: int) -> Tensor:
        """Symmetric Beta(concentration, concentration), as the share of one of two Gamma variables."""
        rows = []
        for generator in self.generators:
            gammas = torch._standard_gamma(
                torch.full((2, *shape), concentration, device=self.device, dtype=torch.float64), generator=generator
            ).clamp_min(1e-300)
            rows.append((gammas[0] / gammas.sum(0)).float())
        return torch.stack(rows)

    @contextmanager
    def standing_still(self, runs: Sequence[int]) -> Iterator[None]:
        """What is drawn inside for these runs is drawn again behind."""
        states = [self.generators[run].get_state() for run in runs]
        yield
        for run, state in zip(runs, states, strict=True):
            self.generators[run].set_state(state)

    def state_dict(self) -> dict[str, Any]:
        return {"generators": [generator.get_state() for generator in self.generators]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly; on another kind of device, whose generators differ, with a seed made from the state."""
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            if saved.shape == generator.get_state().shape:
                generator.set_state(saved)
            else:
                generator.manual_seed(_hashed(saved.numpy().tobytes()))
