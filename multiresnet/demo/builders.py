"""The two networks the demo compares; change them here."""

from __future__ import annotations

import math

import multiresnet as mrn
from multiresnet.spaces.boundary import Boundary

__all__ = ["build_models"]


def build_models(
    in_channels: int, out_channels: int, *, size: tuple[int, ...], boundary: Boundary, quick: bool = False
) -> dict[str, mrn.UNet]:
    """A Multi-ResNet and a residual U-Net whose parameter counts agree within 2 %, tiny ones within 10 %.

    Args:
        in_channels: input_steps * C.
        out_channels: output_steps * C.
        size: of the fields; small ones get fewer levels.
        boundary: of the fields.
        quick: a quarter of the width.

    Returns:
        {"MultiResNet": ..., "ResidualUNet": ...}, both mapping (N, in_channels, *size) to (N, out_channels,
        *size).
    """
    # one halving goes into the Haar patches; the coarsest level keeps two points per side if it can
    levels = max(2, min(4, int(math.log2(min(size))) - 1))
    channels = (16, 16, 16, 32) if quick else (32, 64, 64, 96)
    space = mrn.spaces.Haar(spatial_dims=len(size), boundary=boundary)
    net = mrn.MultiResNet(
        in_channels,
        out_channels,
        space=space,
        channels=channels[:levels],
        num_blocks=2,
        patch_levels=1,
        norm=None,
        delta=True,
    )
    baseline = mrn.match_budget(  # the best of those tried with these blocks and patches: few blocks in the encoder
        mrn.ResidualUNet,
        params=mrn.count_parameters(net),
        tolerance=0.02 if levels == 4 and not quick else 0.1,  # few, narrow levels leave little choice
        in_channels=in_channels,
        out_channels=out_channels,
        space=space,
        channels=(channels if quick else (32, 48, 64, 80))[:levels],
        num_blocks=2,
        encoder_blocks=(0, 1, 1, 1)[:levels],
        patch_levels=1,
        norm="group",
        delta=True,
    )
    return {"MultiResNet": net, "ResidualUNet": baseline}
