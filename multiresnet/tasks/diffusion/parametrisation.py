"""What a diffusion network is asked for: noise, image, velocity or EDM's mixture, all as one affine map.

Noisy images are x = x0 + sigma eps, the convention of Karras et al. (arXiv 2206.00364); sigma^2 is one over the
signal-to-noise ratio. A network F is called as F(c_in x), and the denoised image is (their Table 1)

    x0 = c_skip x + c_out F.

    prediction  c_skip             c_out                    c_in                 so F is
    "eps"       1                  -sigma                   1 / sqrt(1 + s^2)    the noise (Ho et al., 2006.11239)
    "x0"        0                  1                        1 / sqrt(1 + s^2)    the image
    "v"         1 / (1 + s^2)      -sigma / sqrt(1 + s^2)   1 / sqrt(1 + s^2)    alpha eps - sigma_vp x0 (2202.00512)
    "edm"       d^2 / (s^2 + d^2)  s d / sqrt(s^2 + d^2)    1 / sqrt(s^2 + d^2)  of variance 1 at every sigma (d = 0.5)

With alpha = c_in = 1 / sqrt(1 + sigma^2), alpha x is the variance preserving process of DDPM, alpha = sqrt(alphas_cumprod).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from multiresnet.checks import check_choice

__all__ = [
    "PREDICTIONS",
    "SIGMA_DATA",
    "Prediction",
    "denoised",
    "input_scale",
    "mixing",
    "output_of",
    "scales",
    "shrinkage",
    "snr_weight",
]

Prediction = Literal["eps", "x0", "v", "edm"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)
SIGMA_DATA = 0.5  # EDM's standard deviation of images in [-1, 1]


def scales(prediction: Prediction, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out), of the shape of sigma.

    Examples:
        >>> scales("v", torch.tensor([1.0]))
        (tensor([0.5000]), tensor([-0.7071]))
    """
    check_choice("prediction", prediction, PREDICTIONS)
    if prediction == "eps":
        return torch.ones_like(sigma), -sigma
    if prediction == "x0":
        return torch.zeros_like(sigma), torch.ones_like(sigma)
    if prediction == "v":
        return 1 / (1 + sigma**2), -sigma / (1 + sigma**2).sqrt()
    total = sigma**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt()


def input_scale(prediction: Prediction, sigma: Tensor) -> Tensor:
    """c_in: what noisy images are multiplied by before the network sees them."""
    return (sigma**2 + (SIGMA_DATA**2 if prediction == "edm" else 1.0)).rsqrt()


def denoised(prediction: Prediction, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """The image x0 that the network's output stands for; `sigma` has to broadcast against `x`."""
    skip, out = scales(prediction, sigma)
    return skip * x + out * output


def output_of(prediction: Prediction, x0: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """Inverse of `denoised`: the output that stands for `x0`. Denoise and call it to go from one prediction to another.

    Examples:
        >>> x0, eps, sigma = torch.tensor(3.0), torch.tensor(-1.0), torch.tensor(2.0)
        >>> output_of("eps", x0, x0 + sigma * eps, sigma)
        tensor(-1.)
    """
    skip, out = scales(prediction, sigma)
    return (x0 - skip * x) / out


def mixing(prediction: Prediction, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The training target as a mixture of image and noise: F = p x0 + q eps; without the cancellation of `output_of`.

    Returns:
        (p, q), of the shape of sigma.
    """
    skip, out = scales(prediction, sigma)
    one_minus_skip = sigma**2 * input_scale(prediction, sigma) ** 2 if prediction in ("v", "edm") else 1 - skip
    return one_minus_skip / out, -skip * sigma / out


def snr_weight(prediction: Prediction, sigma: Tensor, gamma: float | None) -> Tensor:
    """Weight of F's squared error for which that of x0 weighs min(1 / sigma^2, gamma) (2303.09556); `None`: 1 for F's."""
    if gamma is None:
        return torch.ones_like(sigma)
    return scales(prediction, sigma)[1] ** 2 * (sigma**-2).clamp(max=gamma)


def shrinkage(prediction: Prediction, sigma: Tensor, cells: int) -> Tensor:
    """Variance of the target averaged over `cells` samples, over that of the target itself.

    Noise keeps 1 / cells of its variance, images of natural scenes keep most of theirs, here taken for all. A loss on
    averages is divided by it, or the coarse levels would hardly count: an error of the noise by 1 / cells.

    Examples:
        >>> shrinkage("eps", torch.tensor(1.0), 4), shrinkage("x0", torch.tensor(1.0), 4)
        (tensor(0.2500), tensor(1.))
    """
    p, q = mixing(prediction, sigma)
    image, noise = (p * SIGMA_DATA) ** 2, q**2
    return (image + noise / cells) / (image + noise)
