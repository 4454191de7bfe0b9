"""One level of the Haar pyramid as a module that every tracer reads: torch.jit, torch.fx, torch.compile, torch.export.

The transform of the core is faster, but it is made of autograd functions, which not all tracers of the hosts take.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HaarLevel(nn.Module):
    """Approximation and details of the first `channels` channels of its input, without parameters or buffers.

    Mean convention and order of bands as in `multiresnet.haar_analysis`; an odd axis repeats its last sample. Levels can be
    chained: each reads the approximation in the output of the one before, which comes first.

    Args:
        channels: channels of the image.
        spatial_dims: 1, 2 or 3.
        details: whether to return the details too.
        dilation: 0 halves every axis. A larger one keeps the size, and combines samples that are so far apart (the undecimated,
            or a trous, transform).

    Shape:
        (N, >= channels, *spatial) -> (N, channels * 2**d, *half), or (N, channels, *half) without details;
        half = ceil(spatial / 2), or spatial with a dilation.

    Examples:
        >>> from multiresnet import haar_analysis
        >>> x = torch.randn(1, 3, 5, 8)
        >>> torch.allclose(HaarLevel(3)(x), torch.cat(haar_analysis(x), 1), atol=1e-6)
        True
        >>> HaarLevel(3, dilation=2)(x).shape
        torch.Size([1, 12, 5, 8])
    """

    def __init__(self, channels: int, *, spatial_dims: int = 2, details: bool = True, dilation: int = 0) -> None:
        super().__init__()
        self.channels, self.details = channels, details
        self.axes = list(range(2, 2 + spatial_dims))
        self.stride, self.gap = (1, dilation) if dilation else (2, 1)
        self.out_channels = channels * 2**spatial_dims if details else channels

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, : self.channels]
        widths: list[int] = []
        for axis in self.axes[::-1]:  # F.pad counts from the last
            widths += [0, x.shape[axis] % 2 if self.stride == 2 else self.gap]
        bands = [F.pad(x, widths, mode="replicate")]
        for axis in self.axes:
            halves: list[Tensor] = []
            for band in bands:
                first: Tensor = torch.ops.aten.slice(band, axis, 0, -self.gap, self.stride)
                second: Tensor = torch.ops.aten.slice(band, axis, self.gap, None, self.stride)
                low = (first + second) * 0.5
                halves.append(low)
                if self.details:
                    halves.append(first - low)
            bands = halves
        return torch.cat(bands, 1)
