"""Muon, an optimizer for the hidden weights of a network, and the learning rate of all stages.

Muon replaces the momentum of a weight matrix by the nearest matrix whose singular values are all about one, with
five Newton-Schulz iterations (Jordan et al., 2024, kellerjordan.github.io/posts/muon). It scales the result so that
entries change as much as with AdamW (Liu et al., 2025, arXiv 2502.16982). So one learning rate serves both.
`torch.optim.Muon` takes only matrices, and most weights of a U-Net are convolutions.
"""

from collections.abc import Iterable, Sequence

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315  # Jordan's quintic: converges fast to about one, never exactly


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for weights of two or more dimensions. Convolutions count as (out, in·h·w)."""

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
        """Update all weights that have a gradient. Weights of one shape are updated together."""
        for group in self.param_groups:
            same_shape: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    update = self._momentum(p, group["momentum"]).flatten(1)
                    same_shape.setdefault(tuple(update.shape), []).append((p, update))
            for shape, pairs in same_shape.items():
                updates = orthogonalize(torch.stack([u for _, u in pairs]), self.iterations)
                size = 0.2 * max(shape) ** 0.5 * group["lr"]
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.reshape(p.shape), alpha=-size)

    def _momentum(self, p: torch.Tensor, momentum: float) -> torch.Tensor:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum)


def orthogonalize(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Set all singular values to about 0.7 to 1.2 and keep the singular vectors: (N, rows, columns), float32."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * (square @ square)) @ x
    return (x.mT if tall else x).float()


def warm_then_decay(progress: float, step: int, *, warmup: int = 150, flat: float = 0.3) -> float:
    """Return the learning-rate factor: up over `warmup` steps, flat, then linear down to zero."""
    return min((step + 1) / warmup, 1.0) * min((1 - progress) / (1 - flat), 1.0)


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set the rate of every parameter group, times its `factor` if it has one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)


def update_weights(optimizers: Sequence[torch.optim.Optimizer], parameters: Iterable[torch.nn.Parameter]) -> None:
    """Clip the gradients of `parameters` to norm 1, take one step, and clear the gradients."""
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
