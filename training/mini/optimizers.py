"""Muon: steps of equal size in every direction of a matrix, for the hidden weights of a network.

The momentum of a weight matrix is replaced by the nearest matrix whose singular values are all about one, by
five Newton-Schulz iterations (Jordan et al., 2024, kellerjordan.github.io/posts/muon), scaled so that its
entries move as far as AdamW's would (Liu et al., 2025, arXiv 2502.16982): one learning rate serves both.
`torch.optim.Muon` takes matrices only; most weights of a U-Net are convolutions.
"""

from collections.abc import Iterable

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315  # Jordan's quintic: quick towards one, exact nowhere


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for weights of two or more dimensions; convolutions count as (out, in·h·w)."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        iterations: int = 5,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.iterations = iterations

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step of all weights whose gradient is there; weights of one shape are done together."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    update = self._momentum(p, group["momentum"]).flatten(1)
                    alike.setdefault(tuple(update.shape), []).append((p, update))
            for shape, pairs in alike.items():
                updates = orthogonalize(torch.stack([u for _, u in pairs]), self.iterations)
                far = 0.2 * max(shape) ** 0.5 * group["lr"]
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.reshape(p.shape), alpha=-far)

    def _momentum(self, p: torch.Tensor, momentum: float) -> torch.Tensor:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum)


def orthogonalize(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """The same singular vectors, singular values between about 0.7 and 1.2: (N, rows, columns), float32."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * (square @ square)) @ x
    return (x.mT if tall else x).float()


def warm_then_decay(progress: float, step: int, *, warmup: int = 150, flat: float = 0.3) -> float:
    """Learning-rate factor: up over `warmup` steps, flat, then a straight line down to zero."""
    return min((step + 1) / warmup, 1.0) * min((1 - progress) / (1 - flat), 1.0)
