"""Multi-layer perceptrons with a run axis: every layer holds the weights of all runs and applies them at once."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from conf.fields import Section, choice, ranged
from models.streams import Streams

GAINS = {"relu": 2**0.5, "tanh": 5 / 3}


@dataclass
class MLPConfig(Section):
    """Shape of a network: `depth` hidden layers of `hidden_size` units."""

    hidden_size: int = ranged(256, 1)
    depth: int = ranged(2, 1)
    activation: str = choice("relu", "relu", "tanh")
    input_dropout: float = ranged(0.0, 0, 0.99)  # applied to the input of the first layer
    dropout: float = ranged(0.0, 0, 0.99)  # applied between each hidden layer and its activation
    layer_norm: bool = False  # normalise each hidden layer before its activation


class RunLinear(nn.Module):
    """A linear layer per member, as one batched product. Optionally divided by its largest singular value.

    `members` is (runs,) or (ensemble, runs); weights are [*members, in, out], orthogonal, each run from its stream.
    Spectral normalisation follows Miyato et al. (2018): one power iteration in training mode whenever the weight is
    asked for, none in evaluation mode, with vectors of each member's own.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self,
        members: tuple[int, ...],
        inputs: int,
        outputs: int,
        streams: Streams,
        gain: float = 1.0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*members, inputs, outputs, device=streams.device))
        self.bias = nn.Parameter(torch.zeros(*members, 1, outputs, device=streams.device))
        self.spectral_norm = spectral_norm
        for run, generator in enumerate(streams.generators):
            weights = self.weight.data[..., run, :, :].view(-1, inputs, outputs)
            for weight in weights:
                nn.init.orthogonal_(weight, gain, generator=generator)
        if spectral_norm:
            u = streams.normal(*members[:-1], inputs, 1).movedim(0, -3).reshape(-1, inputs, 1)
            self.register_buffer("u", F.normalize(u, dim=1))
            self.register_buffer("v", F.normalize(self.weight.data.view(-1, inputs, outputs).mT @ self.u, dim=1))
            for _ in range(15):  # so that the first estimate is near the truth, as in torch.nn.utils
                self._power_iteration(self.weight.data.view(-1, inputs, outputs))

    def forward(self, inputs: Float[Tensor, "members batch in"], dtype: torch.dtype) -> Tensor:
        bias = self.bias.view(-1, 1, self.bias.shape[-1])
        return product(inputs.to(dtype), self.applied()[0].to(dtype), bias.to(dtype))

    def applied(self) -> tuple[Float[Tensor, "members in out"], Float[Tensor, "members 1 1"] | None]:
        """The weight as it is applied, and the singular value by which it was divided, if it was."""
        weight = self.weight.view(-1, *self.weight.shape[-2:])
        if not self.spectral_norm:
            return weight, None
        sigma = self._power_iteration(weight.detach()) if self.training else None
        if sigma is None or torch.is_grad_enabled():
            sigma = torch.bmm(torch.bmm(self.u.mT, weight), self.v)
        return weight / sigma, sigma

    @torch.no_grad()
    def _power_iteration(self, weight: Float[Tensor, "members in out"]) -> Float[Tensor, "members 1 1"]:
        """Returns |W' u|, which is u' W v for the new vectors."""
        # In place: to set a buffer takes longer than the products. A recorded graph is good until the next iteration.
        product = torch.bmm(weight, self.v)
        torch.div(product, torch.linalg.vector_norm(product, dim=1, keepdim=True), out=self.u)
        product = torch.bmm(weight.mT, self.u)
        sigma: Tensor = torch.linalg.vector_norm(product, dim=1, keepdim=True)
        torch.div(product, sigma, out=self.v)
        return sigma


def product(
    inputs: Float[Tensor, "members batch in"],
    weight: Float[Tensor, "members in out"],
    bias: Float[Tensor, "members 1 out"],
) -> Float[Tensor, "members batch out"]:
    """inputs weight + bias."""
    if weight.shape[-1] == 1 and len(weight) > 1 and weight.dtype != torch.bfloat16 and not inputs.is_cuda:
        # Batched products with one column are slow on CPUs: this sum takes a quarter of their time.
        return (inputs * weight.mT).sum(-1, keepdim=True) + bias
    return torch.baddbmm(bias, inputs, weight)


class MLP(nn.Module):
    """[runs, batch, inputs] to [*members, batch, outputs]; an ensemble sees the same input in every member.

    Matrix products of hidden layers run in `dtype`, the last one in float32, as parameters and outputs are. Dropout
    masks come from `streams`, which the owner of the network checkpoints. `gains` scale the orthogonal weights of the
    hidden layers and of the final one; by default they are the activation's and 1.
    """

    def __init__(
        self,
        members: tuple[int, ...],
        inputs: int,
        outputs: int,
        config: MLPConfig,
        streams: Streams,
        dtype: torch.dtype = torch.float32,
        spectral_norm: bool = False,
        gains: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.members, self.config, self.streams, self.dtype = members, config, streams, dtype
        sizes = [inputs] + [config.hidden_size] * config.depth
        gain, final_gain = gains or (GAINS[config.activation], 1.0)
        self.hidden = nn.ModuleList(RunLinear(members, i, o, streams, gain, spectral_norm) for i, o in pairwise(sizes))
        self.final = RunLinear(members, sizes[-1], outputs, streams, final_gain, spectral_norm)
        self.norms = nn.ModuleList(
            RunLayerNorm(members, size, streams.device) for size in (sizes[1:] if config.layer_norm else [])
        )
        self.layers: list[RunLinear] = [*self.hidden, self.final]
        self.activation = torch.relu_ if config.activation == "relu" else torch.tanh

    def forward(self, inputs: Float[Tensor, "runs batch in"]) -> Float[Tensor, "*members batch out"]:
        x = inputs.expand(*self.members, *inputs.shape[-2:]).reshape(-1, *inputs.shape[-2:])
        x = self._dropout(x, self.config.input_dropout)
        for index, layer in enumerate(self.hidden):
            x = layer(x, self.dtype)
            if self.norms:
                x = self.norms[index](x)
            x = self.activation(self._dropout(x, self.config.dropout))
        # In bfloat16 a value of 300 would be known to 2: far more than what one action adds to another's.
        outputs: Tensor = self.final(x.to(inputs.dtype), inputs.dtype)
        return outputs.view(*self.members, *outputs.shape[-2:])

    def trace(self, inputs: Float[Tensor, "runs batch in"]) -> tuple[Tensor, list[Tensor]]:
        """Outputs [runs, batch, out], and what went into each layer, for `pull_back`.

        Where a network is small, recording a graph takes most of the time, so PPO does without. For plain layers alone:
        one member a run, float32, no dropout, no normalisation.
        """
        seen = [inputs]
        *hidden, final = self.layers
        for layer in hidden:
            seen.append(self.activation(torch.baddbmm(layer.bias, seen[-1], layer.weight)))
        return torch.baddbmm(final.bias, seen[-1], final.weight), seen

    def pull_back(self, seen: list[Tensor], gradient: Float[Tensor, "runs batch out"]) -> list[Tensor]:
        """Gradients of the parameters, in their order, from that of the outputs."""
        found: list[Tensor] = []
        for index, layer in reversed(list(enumerate(self.layers))):
            found += [gradient.sum(1, keepdim=True), torch.bmm(seen[index].mT, gradient)]
            if index:
                gradient = self.through(seen[index], torch.bmm(gradient, layer.weight.mT))
        return found[::-1]

    def through(self, activated: Float[Tensor, "runs batch feature"], gradient: Tensor) -> Tensor:
        """The gradient by what goes into the activation, from what came out of it and the gradient by that."""
        if self.config.activation == "relu":
            before: Tensor = torch.ops.aten.threshold_backward(gradient, activated, 0.0)
        else:
            before = torch.ops.aten.tanh_backward(gradient, activated)
        return before

    def _dropout(self, x: Float[Tensor, "members batch feature"], probability: float) -> Tensor:
        mask = self.mask(x.shape, probability)
        return x if mask is None else x * mask.to(x.dtype)

    def mask(self, shape: torch.Size, probability: float) -> Float[Tensor, "members batch feature"] | None:
        """Zeros where dropout strikes, and what makes up for them elsewhere; None: there is no dropout."""
        if not self.training or probability == 0:
            return None
        noise = self.streams.uniform(*self.members[:-1], *shape[-2:])  # [runs, (ensemble), batch, feature]
        keep = noise.ge_(probability).mul_(1 / (1 - probability))  # in place: a quarter of the time of a mask of bools
        return keep.movedim(0, -3).reshape(shape)


class RunLayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016) with a scale and shift of each member's own."""

    def __init__(self, members: tuple[int, ...], size: int, device: torch.device) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(*members, 1, size, device=device))
        self.shift = nn.Parameter(torch.zeros(*members, 1, size, device=device))

    def forward(self, x: Float[Tensor, "members batch feature"]) -> Tensor:
        normal = F.layer_norm(x, x.shape[-1:])
        scale, shift = (p.view(-1, 1, x.shape[-1]).to(x.dtype) for p in (self.scale, self.shift))
        return torch.addcmul(shift, normal, scale)
