"""From the options of a network to the parts of the recursion: what `MultiResNet` and `ResidualUNet` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from multiresnet.blocks import AddMerge, BlockName, ConcatMerge, Head, Level, MergeName
from multiresnet.checks import check_choice, check_positive
from multiresnet.encoders import LearnedEncoder, Pyramid
from multiresnet.layers import Activation, Norm
from multiresnet.spaces.base import Space
from multiresnet.unet import DecoderLevel, Restrict, StrictLevel, Sweep

Blocks = Sequence[int] | Sequence[Sequence[int]]


def make_levels(
    channels: Sequence[int], num_blocks: int | Blocks, block: BlockName | Sequence[BlockName], sweeps: int
) -> list[list[Level]]:
    """One list of levels, fine to coarse, for each sweep."""
    check_positive(sweeps=sweeps, levels=len(channels))
    count = len(channels)
    kinds = [block] * count if isinstance(block, str) else list(block)
    rows: list[Any] = [num_blocks] if isinstance(num_blocks, int) else list(num_blocks)
    if all(isinstance(n, int) for n in rows):
        rows = [rows * count if isinstance(num_blocks, int) else rows] * sweeps
    if len(rows) != sweeps:
        raise ValueError(
            f"num_blocks has {len(rows)} rows for sweeps={sweeps}; give one row for each sweep, or one for all"
        )
    for name, values in (("block", kinds), *(("num_blocks", row) for row in rows)):
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} entries for the {count} levels of channels={tuple(channels)}")
    return [[Level(c, n, kind) for c, n, kind in zip(channels, row, kinds)] for row in rows]


def check_widths(in_channels: int, out_channels: int, patch_levels: int, emb_channels: int) -> None:
    """Raise `ValueError` unless the channels are >= 1 and the optional numbers >= 0."""
    check_positive(in_channels=in_channels, out_channels=out_channels)
    for name, value in (("patch_levels", patch_levels), ("emb_channels", emb_channels)):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be an integer >= 0, got {value!r}")


def check_delta(delta: bool, in_channels: int, out_channels: int) -> bool:
    """`delta`, if the input has channels enough for it."""
    if delta and out_channels > in_channels:
        raise ValueError(
            f"delta=True adds the last out_channels={out_channels} channels of the input, which has in_channels={in_channels}"
        )
    return delta


def decoder_parts(
    space: Space,
    encoder: Pyramid | LearnedEncoder,
    sweeps: Sequence[Sequence[Level]],
    out_channels: int,
    merge: MergeName,
    norm: Norm,
    activation: Activation,
    emb_channels: int,
    *,
    lift: bool,
) -> dict[str, Any]:
    """Sweeps, restrictions and heads, shared by both networks; `lift`: the first skips are raw."""
    check_choice("merge", merge, ("add", "concat", "strict"))
    strict, depth, patch_levels = merge == "strict", encoder.depth, encoder.patch_levels
    if strict and (patch_levels or len(sweeps) > 1):
        raise ValueError(
            f'merge="strict" works on the output itself: it needs patch_levels=0 and sweeps=1, got {patch_levels} and {len(sweeps)}'
        )
    kind = {"add": AddMerge, "concat": ConcatMerge, "strict": ConcatMerge}[merge]
    built = []
    for number, levels in enumerate(sweeps):
        modules: list[nn.Module] = []
        coarse_channels: int | None = None
        for i, level in enumerate(reversed(levels)):
            merged: Any = kind(
                space,
                depth - i,
                coarse_channels=coarse_channels,
                skip_channels=level.channels if number else encoder.channels(depth - i),
                channels=level.channels,
                lift=lift and number == 0,
            )
            blocks = level.build(space, norm, activation, emb_channels)
            if strict:
                head = Head(space, depth - i, level.channels, out_channels, patch_levels=0, activation=activation)
                modules.append(StrictLevel(space, depth - i, merged, blocks, head, coarsest=i == 0))
            else:
                modules.append(DecoderLevel(merged, blocks))
            coarse_channels = out_channels if strict else level.channels
        built.append(Sweep(modules))
    widths = [level.channels for level in reversed(sweeps[0])]
    heads = [
        Head(space, depth - i, width, out_channels, patch_levels=patch_levels, activation=activation)
        for i, width in enumerate(widths)
    ]
    return {
        "space": space,
        "encoder": encoder,
        "sweeps": built,
        "restricts": [Restrict(space, patch_levels, widths) for _ in sweeps[1:]],
        "heads": [] if strict else heads,
        "out_channels": out_channels,
        "emb_channels": emb_channels,
    }
