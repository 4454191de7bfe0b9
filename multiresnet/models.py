"""The two networks that users build: a Multi-ResNet, and the residual U-Net with a learned encoder to compare it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from multiresnet import paper
from multiresnet.assembly import Blocks, check_delta, check_widths, decoder_parts, make_levels
from multiresnet.blocks import BlockName, MergeName
from multiresnet.checks import check_choice, check_positive, check_scale, explain_typos
from multiresnet.encoders import SKIPS, LearnedEncoder, Pyramid, SkipName
from multiresnet.layers import Activation, Norm
from multiresnet.spaces import Haar
from multiresnet.spaces.base import Space
from multiresnet.unet import UNet

M = TypeVar("M", bound=UNet)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "surrogate": {"norm": None, "delta": True},  # time stepping of smooth fields; keep the widths at or below 96
    "segmentation": {  # cheap steps at a quarter of the resolution; textures of finer scales as magnitudes
        "channels": (32, 64, 96, 128),
        "num_blocks": (1, 1, 2, 1),
        "patch_levels": 2,
        "skip": "scattering",
        "detail_scale": 8.0,
    },
    "compact": {"channels": (16, 48, 96, 160), "num_blocks": (1, 1, 3, 3)},  # cheap for its parameters
}
"""Options that won in the measurements, by task: `MultiResNet(1, 1, **PRESETS["segmentation"])`."""

TWO_SWEEPS: Mapping[str, Any] = {
    "channels": (32, 48, 64, 96),
    "sweeps": 2,
    "num_blocks": ((1, 1, 1, 1), (1, 2, 2, 1)),
}
"""Options for hosts that want features from half the resolution on."""


class MultiResNet(UNet):
    """U-Net whose encoder is a parameter-free Haar pyramid and whose decoder is a ResNet (paper A, definition 3).

    Per-level tuples run from fine to coarse; their length is the number of levels, each halving the one before.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        space: what the fields are; `None` is `Haar(2, "zeros")`. It fixes dimension, boundary and per-axis halving.
        channels: width of each level; multiples of 16 are fast.
        num_blocks: blocks of each level; one number for all, one for each, or one such tuple for each sweep.
        patch_levels: Haar levels above the finest one: the network runs at 2**-patch_levels resolution on Haar coefficients
            and predicts coefficients. 0 runs at full resolution.
        skip: what a level sees of the input: `"approximation"`, `"detail"`, `"packet"` or `"scattering"`
            (`multiresnet.encoders.Pyramid`).
        detail_scale: factor of the details in what the levels see, > 0. Details of images are about a tenth of their averages,
            and textures are learned faster where they are not that small.
        sweeps: coarse-to-fine passes; from the second on they start from the pooled features of the one before.
        merge: how the coarse state meets the skip: `"add"`, `"concat"`, or `"strict"`, where only the coarse *output*
            is passed on: U_i = R_pre + R with R_pre = embed(U_(i-1)), equal at the start (definition 2; `patch_levels=0`).
        norm: `"group"`, `"batch"`, `"instance"`, `"layer"`, `None`, or a function of the number of channels. `None` saves
            time and memory and is as accurate for narrow networks (widths up to 96, learning rates up to 3e-3, with
            warm-up); wider ones do not train without a norm.
        activation: a `torch.nn` class, its name, or a function of a tensor.
        block: `"residual"`, `"attention"`, `"transformer"` or `"cross"` (`multiresnet.Level`); one for all levels or one for each.
        emb_channels: length of the conditioning vector `emb`, 0 for none; with `"cross"` blocks `emb` is a `Context`.
        delta: predict the change: add the last `out_channels` channels of the input to the output.

    Shape:
        (N, in_channels, *spatial), optionally emb (N, emb_channels) -> (N, out_channels, *spatial), any spatial size >= 1.

    Raises:
        ValueError: tuples of different lengths, zero channels, an unknown name, a strict model with patches or sweeps.
        TypeError: an unknown argument.

    Examples:
        >>> import torch
        >>> net = MultiResNet(3, 1, space=Haar(2, "periodic"), channels=(16, 32, 32), num_blocks=1)
        >>> net(torch.zeros(2, 3, 37, 50)).shape
        torch.Size([2, 1, 37, 50])
        >>> [tuple(y.shape[2:]) for y in net.forward_resolutions(torch.zeros(2, 3, 37, 50))]
        [(10, 13), (19, 25), (37, 50)]
    """

    @explain_typos
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        space: Space | None = None,
        channels: Sequence[int] = (32, 64, 64, 96),
        num_blocks: int | Blocks = 2,
        patch_levels: int = 1,
        skip: SkipName = "detail",
        detail_scale: float = 1.0,
        sweeps: int = 1,
        merge: MergeName = "add",
        norm: Norm = "group",
        activation: Activation = nn.GELU,
        block: BlockName | Sequence[BlockName] = "residual",
        emb_channels: int = 0,
        delta: bool = False,
    ) -> None:
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_choice("skip", skip, SKIPS)
        space = space if space is not None else Haar(2)
        levels = make_levels(channels, num_blocks, block, sweeps)
        check_widths(in_channels, out_channels, patch_levels, emb_channels)
        check_scale(detail_scale=detail_scale)
        depth = patch_levels + len(levels[0]) - 1
        encoder = Pyramid(
            space, in_channels, depth=depth, patch_levels=patch_levels, skip=skip, detail_scale=detail_scale
        )
        super().__init__(
            **decoder_parts(space, encoder, levels, out_channels, merge, norm, activation, emb_channels, lift=True),
            delta=check_delta(delta, in_channels, out_channels),
        )
        self.config = {"build": "MultiResNet", **arguments}

    @classmethod
    def paper(
        cls,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int = 64,
        extra_blocks: int = 3,
        space: Space | None = None,
    ) -> MultiResNet:
        """The layout of the paper's code with exactly its parameter count: see `multiresnet.paper.parts`.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            hidden_channels: width of the finest of five levels; each coarser one doubles it.
            extra_blocks: residual blocks added to each decoder level; 3 restores the encoder's parameters.
            space: as in the class; `None` is `Haar(2, "zeros")`, the paper's.

        Examples:
            >>> sum(p.numel() for p in MultiResNet.paper(12, 3, extra_blocks=0).parameters())
            15719811
        """
        return _in_paper_layout(cls, in_channels, out_channels, hidden_channels, extra_blocks, space, learned=False)


class ResidualUNet(UNet):
    """The same recursion with a learned encoder: a classical residual U-Net, and the baseline to beat.

    Every argument means what it means in `MultiResNet`; there is no `skip`, because the skips are learned features.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        space: as in `MultiResNet`.
        channels: width of each level, fine to coarse, of encoder and decoder.
        num_blocks: decoder blocks of each level, or one such tuple for each sweep.
        encoder_blocks: encoder blocks of each level; `None` takes as many as the (first) decoder sweep has.
        patch_levels: as in `MultiResNet`.
        detail_scale: as in `MultiResNet`; here of the patches that the encoder starts from.
        sweeps: as in `MultiResNet`.
        merge: as in `MultiResNet`.
        norm: as in `MultiResNet`.
        activation: as in `MultiResNet`.
        block: as in `MultiResNet`.
        emb_channels: as in `MultiResNet`; the encoder is conditioned too.
        delta: as in `MultiResNet`.

    Examples:
        >>> import torch
        >>> ResidualUNet(3, 1, channels=(16, 32, 32), num_blocks=1)(torch.zeros(2, 3, 37, 50)).shape
        torch.Size([2, 1, 37, 50])
    """

    @explain_typos
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        space: Space | None = None,
        channels: Sequence[int] = (32, 64, 64, 96),
        num_blocks: int | Blocks = 1,
        encoder_blocks: int | Sequence[int] | None = None,
        patch_levels: int = 1,
        detail_scale: float = 1.0,
        sweeps: int = 1,
        merge: MergeName = "add",
        norm: Norm = "group",
        activation: Activation = nn.GELU,
        block: BlockName | Sequence[BlockName] = "residual",
        emb_channels: int = 0,
        delta: bool = False,
    ) -> None:
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        space = space if space is not None else Haar(2)
        levels = make_levels(channels, num_blocks, block, sweeps)
        check_widths(in_channels, out_channels, patch_levels, emb_channels)
        check_scale(detail_scale=detail_scale)
        encoder = LearnedEncoder(
            space,
            in_channels,
            levels[0] if encoder_blocks is None else make_levels(channels, encoder_blocks, block, 1)[0],
            patch_levels=patch_levels,
            detail_scale=detail_scale,
            norm=norm,
            activation=activation,
            emb_channels=emb_channels,
        )
        super().__init__(
            **decoder_parts(space, encoder, levels, out_channels, merge, norm, activation, emb_channels, lift=False),
            delta=check_delta(delta, in_channels, out_channels),
        )
        self.config = {"build": "ResidualUNet", **arguments}

    @classmethod
    def paper(
        cls,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int = 64,
        extra_blocks: int = 0,
        space: Space | None = None,
    ) -> ResidualUNet:
        """The paper's residual U-Net; arguments as in `MultiResNet.paper`.

        Examples:
            >>> sum(p.numel() for p in ResidualUNet.paper(12, 3).parameters())
            34531971
        """
        return _in_paper_layout(cls, in_channels, out_channels, hidden_channels, extra_blocks, space, learned=True)


def _in_paper_layout(
    cls: type[M],
    in_channels: int,
    out_channels: int,
    hidden_channels: int,
    extra_blocks: int,
    space: Space | None,
    *,
    learned: bool,
) -> M:
    check_positive(in_channels=in_channels, out_channels=out_channels, hidden_channels=hidden_channels)
    net = cls.__new__(cls)  # the class says what the network is; its own options don't apply to this layout
    parts = paper.parts(space or Haar(2), in_channels, out_channels, hidden_channels, extra_blocks, learned=learned)
    UNet.__init__(net, **parts)
    net.config = {
        "build": "ResidualUNet.paper" if learned else "MultiResNet.paper",
        "in_channels": in_channels,
        "out_channels": out_channels,
        "hidden_channels": hidden_channels,
        "extra_blocks": extra_blocks,
        "space": space,
    }
    return net
