"""How far predicted frames are from true ones. Frames are (B, T, C, *space); means over tests are left to the caller."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from multiresnet.spaces.boundary import Boundary

from .spectrum import check_same_shape, fourier_rmse, spectrum_error

__all__ = ["frame_errors", "nrmse", "r_mse", "relative_l2", "relative_squared_error", "vrmse"]


def relative_squared_error(prediction: Tensor, truth: Tensor, *, start_dim: int = 1) -> Tensor:
    """|prediction - truth|^2 / |truth|^2, norms over all axes from `start_dim` on.

    Examples:
        >>> import torch
        >>> relative_squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([0.5000])
    """
    check_same_shape(prediction, truth)
    error = (prediction - truth).flatten(start_dim).square().sum(-1)
    return error / truth.flatten(start_dim).square().sum(-1).clamp_min(1e-12)


def relative_l2(prediction: Tensor, truth: Tensor) -> Tensor:
    """|prediction - truth| / |truth| of every frame, norms over channels and space: (B, T).

    Channels of different units need standardised frames, or the largest one decides alone.

    Examples:
        >>> import torch
        >>> relative_l2(torch.zeros(1, 2, 1, 4), torch.ones(1, 2, 1, 4))
        tensor([[1., 1.]])
    """
    return relative_squared_error(prediction, truth, start_dim=2).sqrt()


def nrmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """sqrt(<(u - v)^2> / <v^2>) of every frame and channel, means over space: (B, T, C).

    The nRMSE of PDEBench (arXiv 2210.07182) and of rain nowcasting. It depends on the units' zero: give it data units.

    Examples:
        >>> import torch
        >>> nrmse(torch.full((1, 1, 1, 4), 3.0), torch.full((1, 1, 1, 4), 2.0))
        tensor([[[0.5000]]])
    """
    return relative_squared_error(prediction, truth, start_dim=3).sqrt()


def vrmse(prediction: Tensor, truth: Tensor, *, eps: float = 1e-7) -> Tensor:
    """sqrt(<(u - v)^2> / (<(v - <v>)^2> + eps)) of every frame and channel, means over space: (B, T, C).

    The VRMSE of The Well (arXiv 2412.00568): 1 is what the mean of the true frame would get. Units and offsets don't
    matter, but for `eps`. (The Well's code divides the variance by n - 1 instead of n.)

    Examples:
        >>> import torch
        >>> truth = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
        >>> vrmse(truth.mean(-1, keepdim=True).expand_as(truth), truth)
        tensor([[[1.0000]]])
    """
    check_same_shape(prediction, truth)
    variance = truth.flatten(3).var(-1, correction=0)
    return ((prediction - truth).flatten(3).square().mean(-1) / (variance + eps)).sqrt()


def r_mse(prediction: Tensor, truth: Tensor, *, steps: int = 5) -> Tensor:
    """Mean squared error over channels and space, summed over the first `steps` frames of a rollout: (B,).

    The r-MSE of arXiv 2305.19638: rollouts of 5 steps from every start, averaged over the starts. Data units.

    Raises:
        ValueError: fewer frames than `steps`.

    Examples:
        >>> import torch
        >>> r_mse(torch.ones(1, 6, 1, 4), torch.zeros(1, 6, 1, 4))
        tensor([5.])
    """
    check_same_shape(prediction, truth)
    if prediction.shape[1] < steps:
        raise ValueError(f"r_mse sums over {steps} frames, got {prediction.shape[1]}; roll out further, or give steps")
    return (prediction - truth)[:, :steps].flatten(2).square().mean(-1).sum(-1)


def frame_errors(
    prediction: Tensor,
    truth: Tensor,
    *,
    boundary: Boundary = "replicate",
    units: Callable[[Tensor], Tensor] = lambda frames: frames,
) -> dict[str, Tensor]:
    """Errors of standardised frames, each (B, T), by name, means over the channels.

    Args:
        prediction: (B, T, C, *space).
        truth: the same shape.
        boundary: of the fields, for the spectra.
        units: from standardised values to data units, for `nrmse`.

    Returns:
        `rel_l2`, `nrmse` (data units), `vrmse`, and for each of the `BANDS` that the grid has `spectrum_low` ... and
        `frmse_low` ...

    Examples:
        >>> import torch
        >>> sorted(frame_errors(torch.zeros(1, 2, 1, 8), torch.ones(1, 2, 1, 8)))
        ['frmse_low', 'nrmse', 'rel_l2', 'spectrum_low', 'vrmse']
    """
    errors = {
        "rel_l2": relative_l2(prediction, truth),
        "nrmse": nrmse(units(prediction), units(truth)).mean(-1),
        "vrmse": vrmse(prediction, truth).mean(-1),
    }
    for name, measure in (("spectrum", spectrum_error), ("frmse", fourier_rmse)):
        bands = measure(prediction, truth, spatial_dims=truth.ndim - 3, boundary=boundary)
        errors |= {f"{name}_{band}": value.mean(-1) for band, value in bands.items()}
    return errors
