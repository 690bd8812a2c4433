"""Optimizers' arithmetic on torch: many variables in one call.

What Keras does around an operation takes longer than a small operation, and where Keras makes a tensor of a
Python number the host waits for the GPU (docs/log.md, The host's time on torch). All changes are in place and
need no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bert_keras.encoders.torch_kernels import is_compiling


def values_of(variables: Sequence[Any]) -> list[Any]:
    """Return the tensors of Keras' variables."""
    return [variable.value for variable in variables]


def clipped(gradients: Sequence[Any], largest: float) -> list[Any]:
    """Return gradients whose norm, all together, is at most so large; not a number, if the norm is not finite
    (Pascanu et al. 2013, algorithm 1)."""
    import torch

    present = [gradient for gradient in gradients if gradient is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(present)))
    if _is_at_hand(norm) and norm <= largest:
        return list(gradients)
    scale = (largest / norm).clamp(max=1.0) + (norm - norm)
    scaled = iter(torch._foreach_mul(present, scale))
    return [None if gradient is None else next(scaled) for gradient in gradients]


def ahead(momenta: Sequence[Any], gradients: Sequence[Any], momentum: float) -> list[Any]:
    """Move momenta towards gradients, and return where they would be one move later (Nesterov's form)."""
    import torch

    momenta = list(momenta)
    steps = torch._foreach_mul(list(gradients), 1.0 - momentum)
    torch._foreach_mul_(momenta, momentum)
    torch._foreach_add_(momenta, steps)
    found = torch._foreach_mul(momenta, momentum)
    torch._foreach_add_(found, steps)
    return list(found)


def orthogonalized(
    matrices: Any, coefficients: tuple[float, float, float], num_iterations: int, dtype: str
) -> Any:
    """`muon.orthogonalize` in three kernels an iteration.

    Args:
        matrices: `(..., rows, columns)`.
        coefficients: of the iteration's polynomial.
        num_iterations: how often.
        dtype: of the products.
    """
    import torch

    a, b, c = coefficients
    x = matrices.float().flatten(0, -3) if matrices.dim() > 2 else matrices.float()[None]
    x = (x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) + 1e-7)).to(getattr(torch, dtype))
    for _ in range(num_iterations):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float().reshape(matrices.shape)


def decay(variables: Sequence[Any], share: Any) -> None:
    """Take a share of each variable off it."""
    import torch

    with torch.no_grad():
        torch._foreach_mul_(list(variables), 1.0 - share)


def move(variables: Sequence[Any], directions: Sequence[Any], sizes: Sequence[float], rate: Any) -> None:
    """Subtract directions, each times a size of its own and the rate."""
    import torch

    steps = torch._foreach_mul(list(directions), list(sizes))
    torch._foreach_mul_(steps, rate)
    torch._foreach_sub_(list(variables), steps)


def adam(
    variables: Sequence[Any],
    momenta: Sequence[Any],
    velocities: Sequence[Any],
    gradients: Sequence[Any],
    *,
    rate: Any,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    step: Any,
) -> None:
    """Update variables and their moments (Kingma and Ba 2014, algorithm 1).

    Args:
        variables, momenta, velocities, gradients: tensors, one shape for each place.
        rate: learning rate, a tensor.
        beta_1, beta_2: decay of the moments.
        epsilon: added to the root of the velocity when its bias is corrected.
        step: number of the update, from 1, a tensor.
    """
    import torch

    momenta, velocities, gradients = list(momenta), list(velocities), list(gradients)
    if has_one_kernel([*variables, *momenta, *velocities, *gradients]):
        hyper = {"rate": rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "step": step}
        adam_by_kernel(variables, momenta, velocities, gradients, **hyper)
        return
    torch._foreach_mul_(momenta, beta_1)
    torch._foreach_add_(momenta, gradients, alpha=1.0 - beta_1)
    torch._foreach_mul_(velocities, beta_2)
    torch._foreach_addcmul_(velocities, gradients, gradients, value=1.0 - beta_2)
    step = step.float()
    roots = torch._foreach_sqrt(velocities)
    torch._foreach_mul_(roots, torch.rsqrt(1.0 - torch.pow(beta_2, step)))
    torch._foreach_add_(roots, epsilon)
    steps = torch._foreach_div(momenta, roots)
    torch._foreach_mul_(steps, rate / (1.0 - torch.pow(beta_1, step)))
    torch._foreach_sub_(list(variables), steps)


def adam_by_kernel(
    variables: Sequence[Any],
    momenta: Sequence[Any],
    velocities: Sequence[Any],
    gradients: Sequence[Any],
    *,
    rate: Any,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    step: Any,
) -> None:
    """`adam` in one pass through memory, for tensors that `has_one_kernel`; rate and step may be numbers."""
    import torch

    torch._fused_adam_(
        list(variables),
        [gradient.contiguous() for gradient in gradients],
        list(momenta),
        list(velocities),
        [],
        [torch.as_tensor(step, dtype=torch.float32)] * len(gradients),
        lr=float(rate),
        beta1=beta_1,
        beta2=beta_2,
        weight_decay=0.0,
        eps=epsilon,
        amsgrad=False,
        maximize=False,
    )


def has_one_kernel(tensors: Sequence[Any]) -> bool:
    """Return whether PyTorch's own kernel for Adam takes tensors here: in float32 on a CPU.

    On a GPU it would want learning rate and step as numbers, for which the host had to wait.
    """
    import torch

    return all(_is_at_hand(tensor) and tensor.dtype == torch.float32 for tensor in tensors)


def _is_at_hand(tensor: Any) -> bool:
    """Return whether the program may look at a tensor's numbers: for those on a GPU it would have to wait."""
    return tensor.device.type == "cpu" and not is_compiling()
