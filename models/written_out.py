"""Gradients of small networks, written out: by what they say, and by how steep they are.

To record a graph takes longer than the products of a small network, and to differentiate twice several times as long.
Hidden layer l makes x_l = phi(m_l y_l), y_l = N(x_l-1 V_l + b_l): V_l is the weight as it is applied, W_l / sigma_l
under spectral normalisation; N is layer normalisation or nothing, m_l a dropout mask or nothing. x_0 is the input times
a mask of its own, and the output D = x_L v + b is one number.

Slopes by the input run backwards. What a weighted sum of them gains by parameters needs no second derivative of the
whole: along fixed directions c it is the derivative of D, c . grad D, which runs forwards beside x. It depends on V_l
through slopes that are at hand; only where phi or N is curved does it depend on y_l, too, and is pulled back as D is.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.mlp import MLP, RunLayerNorm, RunLinear, product

Rows = Float[Tensor, "runs batch _"]


@dataclass(frozen=True)
class Hidden:
    """What a hidden layer leaves behind of some rows."""

    inputs: Rows  # x_l-1
    outputs: Rows  # x_l
    mask: Rows | None  # m_l
    normal: Rows | None  # standardised products
    rate: Float[Tensor, "runs batch 1"] | None  # one over their standard deviations

    def standardised(self, direction: Rows) -> Rows:
        """J d, where J, which is symmetric, is the derivative of the standardised products by the products."""
        if self.normal is None or self.rate is None:
            return direction
        along = (self.normal * direction).mean(-1, keepdim=True)
        return self.rate * (direction - direction.mean(-1, keepdim=True) - self.normal * along)

    def curvature(self, by_normal: Rows, direction: Rows, standardised: Rows, by_product: Rows) -> Rows:
        """The derivative of p . J d by the products; J d and J p are at hand."""
        assert self.normal is not None and self.rate is not None
        bent = (by_normal * standardised).mean(-1, keepdim=True) * self.normal
        bent = bent + (by_normal * self.normal).mean(-1, keepdim=True) * standardised
        return -self.rate * (bent + (direction * self.normal).mean(-1, keepdim=True) * by_product)


@dataclass(frozen=True)
class Pass:
    """A forward pass."""

    mask: Rows | None  # of the input
    hidden: list[Hidden]
    last: Rows  # x_L


@dataclass(frozen=True)
class Slopes:
    """Of the output: by the input, and on the way there by each hidden layer's y and by its products."""

    by_input: Float[Tensor, "runs _ input"]
    by_hidden: list[Rows]
    by_products: list[Rows]


@dataclass(frozen=True)
class Bend:
    """How c . grad D depends on a hidden layer's y and, beside that, on its products. None: not at all."""

    by_hidden: Rows | None
    by_products: Rows | None


class WrittenOut:
    """A network of one output and one member a run, in float32, for one step: it holds the weights as they are applied.

    Gradients of all calls of `pull_back` and `push` add up until `assign`.
    """

    def __init__(self, network: MLP | RunLinear) -> None:
        """In training mode this is one power iteration of spectral normalisation, and passes draw dropout masks."""
        self.network = network if isinstance(network, MLP) else None
        self.linears = network.layers if isinstance(network, MLP) else [network]
        self.norms: list[RunLayerNorm | None] = [None] * (len(self.linears) - 1)
        if isinstance(network, MLP) and network.config.layer_norm:
            self.norms = list(network.norms)  # type: ignore[arg-type]  # that is what it is made of
        self.curved = isinstance(network, MLP) and (network.config.layer_norm or network.config.activation != "relu")
        self.weights, self.sigmas = zip(*(linear.applied() for linear in self.linears), strict=True)
        self.gradients: dict[nn.Parameter, Tensor] = {}  # those of weights are by V_l

    def forward(self, inputs: Rows) -> Pass:
        if self.network is None:
            return Pass(None, [], inputs)
        mask = self.network.mask(inputs.shape, self.network.config.input_dropout)
        x = inputs if mask is None else inputs * mask
        hidden: list[Hidden] = []
        for index in range(len(self.norms)):
            hidden.append(self._hidden(index, x, self.network))
            x = hidden[-1].outputs
        return Pass(mask, hidden, x)

    def outputs(self, seen: Pass) -> Float[Tensor, "runs batch"]:
        return product(seen.last, self.weights[-1], self.linears[-1].bias).squeeze(-1)

    def _hidden(self, index: int, inputs: Rows, network: MLP) -> Hidden:
        y, normal, rate = product(inputs, self.weights[index], self.linears[index].bias), None, None
        norm = self.norms[index]
        if norm is not None:
            normal, _, rate = torch.native_layer_norm(y, y.shape[-1:], None, None, 1e-5)
            y = torch.addcmul(norm.shift, normal, norm.scale)
        mask = network.mask(y.shape, network.config.dropout)
        if mask is not None:
            y = y * mask
        return Hidden(inputs, network.activation(y), mask, normal, rate)

    def pull_back(self, seen: Pass, by_outputs: Float[Tensor, "runs batch"], bends: list[Bend] | None = None) -> None:
        """Add the gradients of what depends so on the outputs, and so, if at all, on what is before them."""
        gradient = by_outputs.unsqueeze(-1)
        self._add_products(-1, seen.last, gradient)
        self._add(self.linears[-1].bias, gradient.sum(1, keepdim=True))
        by_next = gradient * self.weights[-1].mT
        for index, hidden in reversed(list(enumerate(seen.hidden))):
            gradient = self._activated(hidden, by_next)
            if bends is not None and (bend := bends[index].by_hidden) is not None:
                gradient = gradient + bend
            if (norm := self.norms[index]) is not None and hidden.normal is not None:
                self._add(norm.shift, gradient.sum(1, keepdim=True))
                self._add(norm.scale, (gradient * hidden.normal).sum(1, keepdim=True))
                gradient = hidden.standardised(gradient * norm.scale)
                if bends is not None and (bend := bends[index].by_products) is not None:
                    gradient = gradient + bend
            self._add_products(index, hidden.inputs, gradient)
            self._add(self.linears[index].bias, gradient.sum(1, keepdim=True))
            if index:
                by_next = torch.bmm(gradient, self.weights[index].mT)

    def slopes(self, seen: Pass) -> Slopes:
        """Of the output by the input of each row; those of a linear layer are the same in all rows."""
        slope: Tensor = self.weights[-1].mT  # [runs, 1, feature]
        by_hidden, by_products = [], []
        for index, hidden in reversed(list(enumerate(seen.hidden))):
            by_hidden.append(self._activated(hidden, slope))
            norm = self.norms[index]
            by_products.append(by_hidden[-1] if norm is None else hidden.standardised(by_hidden[-1] * norm.scale))
            slope = torch.bmm(by_products[-1], self.weights[index].mT)
        return Slopes(slope if seen.mask is None else slope * seen.mask, by_hidden[::-1], by_products[::-1])

    def push(self, seen: Pass, slopes: Slopes, directions: Rows) -> None:
        """Add the gradients of the sum over rows of c . grad D, where D is the output and c are these directions."""
        tangent = directions if seen.mask is None else directions * seen.mask
        bends = []
        for index, hidden in enumerate(seen.hidden):
            by_hidden, by_products, norm = slopes.by_hidden[index], slopes.by_products[index], self.norms[index]
            self._add_products(index, tangent, by_products)
            direction = torch.bmm(tangent, self.weights[index])
            tangent, bent = direction, None
            if norm is not None:
                standardised = hidden.standardised(direction)
                self._add(norm.scale, (by_hidden * standardised).sum(1, keepdim=True))
                bent = hidden.curvature(by_hidden * norm.scale, direction, standardised, by_products)
                tangent = standardised * norm.scale
            bends.append(Bend(self._bend(hidden, by_hidden, tangent), bent))
            tangent = self._activated(hidden, tangent)
        self._add(self.linears[-1].weight, tangent.sum(1).unsqueeze(-1))
        if self.curved:
            self.pull_back(seen, torch.zeros_like(tangent[..., 0]), bends)

    def assign(self) -> None:
        """Make what was added up the parameters' gradients."""
        for linear, weight, sigma in zip(self.linears, self.weights, self.sigmas, strict=True):
            if sigma is not None:
                gradient = self.gradients[linear.weight]
                # W / sigma grows by dW / sigma - W u' dW v / sigma^2.
                along = (gradient * weight).sum((1, 2), keepdim=True)
                self.gradients[linear.weight] = torch.baddbmm(gradient, linear.u * along, linear.v.mT, alpha=-1) / sigma
        for parameter, gradient in self.gradients.items():
            parameter.grad = gradient

    def _activated(self, hidden: Hidden, values: Float[Tensor, "runs _ _"]) -> Rows:
        """Times m phi'(m y), in each row."""
        assert self.network is not None
        values = self.network.through(hidden.outputs, values)
        return values if hidden.mask is None else values * hidden.mask

    def _bend(self, hidden: Hidden, by_hidden: Rows, tangent: Rows) -> Rows | None:
        """phi''(y) m^2 times slope and tangent: tanh'' = -2 tanh tanh', and m tanh' is in the slope."""
        assert self.network is not None
        if self.network.config.activation == "relu":
            return None
        bent = -2 * hidden.outputs * by_hidden * tangent
        return bent if hidden.mask is None else bent * hidden.mask

    def _add_products(self, index: int, inputs: Rows, gradient: Rows) -> None:
        """The gradient by a weight, inputs' gradient."""
        weight = self.linears[index].weight
        found = self.gradients.get(weight)
        transposed = inputs.mT
        self.gradients[weight] = (
            torch.bmm(transposed, gradient) if found is None else torch.baddbmm(found, transposed, gradient)
        )

    def _add(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        found = self.gradients.get(parameter)
        self.gradients[parameter] = gradient if found is None else found + gradient
