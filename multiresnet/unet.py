"""The recursion U = (V, W, E, D, P, U_0) of paper A, definition 1.

    U_0 = bottleneck,    U_i(v) = D_i( U_(i-1)(P_(i-1) E_i v) | E_i v ).

`spaces` say what V, W and P are, an encoder says what E is, the levels of a sweep are the D_i. Lists run coarsest first,
so that entry `i` of `sweep.levels`, of `heads` and of `forward_resolutions(x)` belongs to U_i.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiresnet import pretrained
from multiresnet.attention import CrossAttention
from multiresnet.blocks import AddMerge, ConcatMerge, Head, total_radius
from multiresnet.checks import check_input
from multiresnet.context import Emb, check_emb
from multiresnet.encoders import LearnedEncoder, Pyramid
from multiresnet.layers import zero_init
from multiresnet.spaces.base import Space


class DecoderLevel(nn.Module):
    """D_i: merge the coarser state with the skip, then blocks. `forward(w, skip, emb)`, w = `None` at the coarsest level."""

    def __init__(self, merge: AddMerge | ConcatMerge, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.merge, self.blocks = merge, blocks

    def forward(self, w: Tensor | None, skip: Tensor, emb: Emb | None = None) -> Tensor:
        h = self.merge(w, skip)
        for block in self.blocks:
            h = block(h, emb)
        return cast(Tensor, h)


class StrictLevel(nn.Module):
    """D_i(w | v) = R_pre + F(R_pre, v) with R_pre = embed(w): definition 2, W_i = the output space itself.

    F ends with a convolution that is zero at the start (but in U_0), so U_i starts equal to R_pre.
    """

    def __init__(
        self, space: Space, level: int, merge: ConcatMerge, blocks: nn.ModuleList, head: Head, *, coarsest: bool
    ) -> None:
        super().__init__()
        self.space, self.level, self.merge, self.blocks, self.head = space, level, merge, blocks, head
        if not coarsest:
            zero_init(head.conv)

    def forward(self, w: Tensor | None, skip: Tensor, emb: Emb | None = None) -> Tensor:
        h = self.merge(w, skip)
        for block in self.blocks:
            h = block(h, emb)
        residual = self.head(h, [h.shape[2:]])
        return cast(Tensor, residual if w is None else self.space.embed(w, skip.shape[2:], self.level) + residual)


class Restrict(nn.Module):
    """Skips of a further sweep: the features of the sweep before, mixed with those of all finer levels, pooled.

    `p_l = W [f_l, project(p_(l-1))]` from fine to coarse: one more multigrid cycle with the same parameter-free P.
    """

    def __init__(self, space: Space, finest: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.space, self.finest = space, finest
        self.finer_channels = [*channels[1:], 0]  # coarsest first, as `channels`; the finest level has no finer one
        self.mix = nn.ModuleList(space.conv(own + finer, own, 1) for own, finer in zip(channels, self.finer_channels))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        skips: list[Tensor] = []
        for steps, f in enumerate(reversed(features)):
            i = len(features) - 1 - steps
            if skips:
                pooled = self.space.project(skips[-1], self.finest + len(self.mix) - 2 - i)
            else:  # nothing finer: zero, also in a stage of a larger network
                pooled = f.new_zeros(f.shape[0], self.finer_channels[i], *f.shape[2:])
            skips.append(self.mix[i](torch.cat([f, pooled], 1)))
        return skips[::-1]

    def stage(self, i: int) -> Restrict:
        """The same weights for the `i + 1` coarsest levels alone."""
        part = copy.copy(self)
        part._modules = {"mix": self.mix[: i + 1]}
        part.finest = self.finest + len(self.mix) - (i + 1)
        part.finer_channels = self.finer_channels[: i + 1]
        return part


class Sweep(nn.Module):
    """One pass from the coarsest level to the finest: list of skips -> list of states, coarsest first."""

    def __init__(self, levels: Sequence[nn.Module]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.checkpointing = False

    def forward(self, skips: Sequence[Tensor], emb: Emb | None = None) -> list[Tensor]:
        states: list[Tensor] = []
        w: Tensor | None = None
        for level, skip in zip(self.levels, skips):
            if self.checkpointing and torch.is_grad_enabled():
                w = cast(Tensor, checkpoint(level, w, skip, emb, use_reentrant=False))
            else:
                w = cast(Tensor, level(w, skip, emb))
            states.append(w)
        return states


def run_sweeps(
    sweeps: Iterable[nn.Module], restricts: Iterable[nn.Module], skips: Sequence[Tensor], emb: Emb | None = None
) -> list[Tensor]:
    """All sweeps in a row, each but the first on what `restricts` makes of the one before: list of skips -> list of states."""
    for sweep, restrict in zip(sweeps, [None, *restricts]):
        skips = sweep(skips if restrict is None else restrict(skips), emb)
    return cast(list[Tensor], skips)


def telescope(
    space: Space, heads: nn.ModuleList, states: Sequence[Tensor], sizes: Sequence[Sequence[int]], depth: int
) -> list[Tensor]:
    """`y_i = embed(y_(i-1)) + head_i(state_i)`, coarsest first, for the finest states, as many as there are heads.

    Args:
        space: of the states.
        heads: of the finest levels.
        states: of all levels, coarsest first.
        sizes: grids of all levels, then those of the patches, down to the grid of the last output.
        depth: level of the coarsest state.
    """
    outputs: list[Tensor] = []
    patch_levels = len(sizes) - len(states)
    for i, head in enumerate(heads, start=len(states) - len(heads)):
        y = head(states[i], sizes[i : i + patch_levels + 1])
        if outputs:
            y = y + space.embed(outputs[-1], y.shape[2:], depth - i - patch_levels)
        outputs.append(y)
    return outputs


class UNet(nn.Module):
    """The recursion, from its parts; `MultiResNet` and `ResidualUNet` build them.

    The output is a telescoping sum over resolutions, `y_i = embed(y_(i-1)) + head_i(state_i)`, so every partial sum is a
    model of its own (paper A, section A.2, T5).

    Args:
        space: the nested spaces.
        encoder: `Pyramid` or `LearnedEncoder`.
        sweeps: coarse-to-fine passes, each with one level for each skip.
        restricts: what leads from each sweep to the next, `len(sweeps) - 1` of them.
        heads: one for each of the finest levels; empty where the states are outputs already.
        out_channels: channels of the output.
        emb_channels: channels of the conditioning vector, 0 for none.
        delta: add the last `out_channels` of the input to the output (time stepping).
    """

    def __init__(
        self,
        *,
        space: Space,
        encoder: Pyramid | LearnedEncoder,
        sweeps: Sequence[Sweep],
        restricts: Sequence[Restrict],
        heads: Sequence[Head],
        out_channels: int,
        emb_channels: int = 0,
        delta: bool = False,
    ) -> None:
        super().__init__()
        self.space, self.encoder = space, encoder
        self.sweeps, self.restricts, self.heads = nn.ModuleList(sweeps), nn.ModuleList(restricts), nn.ModuleList(heads)
        self.in_channels, self.out_channels, self.emb_channels = encoder.in_channels, out_channels, emb_channels
        self.delta, self.depth, self.patch_levels = delta, encoder.depth, encoder.patch_levels
        self.num_levels = len(sweeps[0].levels)
        self.attends = any(isinstance(module, CrossAttention) for module in self.modules())
        self.config: dict[str, Any] = {}

    def forward(self, x: Tensor, emb: Emb | None = None) -> Tensor:
        """(N, in_channels, *spatial), (N, emb_channels) or a `Context` -> (N, out_channels, *spatial), any spatial size >= 1."""
        self._check(x, emb)
        v = self.space.fit(x, self.depth - self.output_level(self.num_levels - 1))
        y = self._solve(v, emb)[-1]
        if self.delta:
            y = y + v[:, -self.out_channels :]
        return self.space.unfit(y, x.shape[2:])

    def forward_resolutions(self, x: Tensor, emb: Emb | None = None) -> list[Tensor]:
        """The outputs U_0 ... U_i, coarsest first, each on its own grid; the last one is `forward(x, emb)`."""
        self._check(x, emb)
        v = self.space.fit(x, self.depth - self.output_level(self.num_levels - 1))
        outputs = self._solve(v, emb)
        if self.delta:
            base, bases = v[:, -self.out_channels :], []
            for finer in range(self.output_level(self.num_levels - 1), self.output_level(0) + 1):
                bases.append(base)
                base = self.space.project(base, finer)
            outputs = [y + b for y, b in zip(outputs, bases[::-1][-len(outputs) :])]
        return [*outputs[:-1], self.space.unfit(outputs[-1], x.shape[2:])]

    def _solve(self, v: Tensor, emb: Emb | None) -> list[Tensor]:
        states = run_sweeps(self.sweeps, self.restricts, self.encoder(v, emb, levels=self.num_levels), emb)
        return telescope(self.space, self.heads, states, self._sizes(v, states), self.depth) if self.heads else states

    def output_level(self, i: int) -> int:
        """The level whose grid the output of U_i lives on; 0 is the finest of the whole network."""
        return self.depth - i - self.patch_levels

    def _sizes(self, v: Tensor, states: Sequence[Tensor]) -> list[Sequence[int]]:
        """Grids of all levels, coarsest first, then those of the patches, down to the grid of `v`."""
        fine: list[Sequence[int]] = []
        for k in range(self.patch_levels):
            v = self.space.project(v, self.output_level(self.num_levels - 1) + k - 1) if k else v
            fine.append(v.shape[2:])
        return [state.shape[2:] for state in states] + fine[::-1]

    def stage(self, i: int) -> UNet:
        """U_i, the sub-network of the `i + 1` coarsest levels, as a model that shares its weights.

        It maps (N, in_channels, *grid) to (N, out_channels, *grid) on the grid that is `depth - i - patch_levels` halvings
        coarser than the full one. For an `x` in that coarser space it equals `forward_resolutions(embedded x)[i]` (one
        sweep); with `skip="approximation"`, and with `"detail"` and patches, `forward_resolutions(x)[i]` for every x.
        A learned encoder has no stem of its own at the coarse levels: there the stage embeds its input and runs it whole.

        Raises:
            ValueError: `i` outside 0 ... num_levels - 1, or a model that has no head at that level.
        """
        missing = self.num_levels - len(self.heads) if self.heads else 0
        if not missing <= i < self.num_levels:
            hint = "; built with one head, it has no coarser outputs" if missing else ""
            raise ValueError(f"stage must be in {missing} ... {self.num_levels - 1}, got {i}{hint}")
        if i == self.num_levels - 1:
            return self
        return UNet(
            space=self.space,
            encoder=self.encoder,
            sweeps=[Sweep(list(cast(Sweep, sweep).levels)[: i + 1]) for sweep in self.sweeps],
            restricts=[cast(Restrict, restrict).stage(i) for restrict in self.restricts],
            heads=cast(list[Head], list(self.heads)[: i + 1 - missing]),
            out_channels=self.out_channels,
            emb_channels=self.emb_channels,
            delta=self.delta,
        )

    @property
    def anchored(self) -> bool:
        """Whether zero means something in its data, see `Space.anchored`."""
        return self.space.anchored

    @property
    def receptive_field(self) -> tuple[int, ...] | None:
        """Side in samples, per axis, of the box around an output sample that it can depend on; `None`: everything.

        That is so with attention, and on spaces without windows (`Space.tileable`).
        An upper bound by at most the cells' alignment. Statistics of group, layer and instance norms are not counted: they
        reach everywhere. Half of it, rounded up to `space.reduction(depth)`, is the halo of tiled inference.
        """
        radii: list[tuple[int, int | None]] = list(self.encoder.radius.items())
        for sweep in self.sweeps:
            for i, decoder in enumerate(cast(Sweep, sweep).levels):
                radii += [(self.depth - i, total_radius(decoder))]
        for i, _ in enumerate(self.heads, start=self.num_levels - len(self.heads)):
            radii += [(self.depth - i, Head.radius)]
        if not self.space.tileable or any(radius is None for _, radius in radii):
            return None
        coarsest = self.space.reduction(self.depth)
        reach = [len(self.sweeps) * (cell - 1) for cell in coarsest]
        for level, radius in radii:
            reach = [r + cast(int, radius) * cell for r, cell in zip(reach, self.space.reduction(level))]
        return tuple(2 * r + 1 for r in reach)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each level in the backward pass instead of storing what is inside it: less memory, more time."""
        for sweep in self.sweeps:
            cast(Sweep, sweep).checkpointing = enable

    def save_pretrained(self, folder: pretrained.Folder) -> None:
        """Write `config.json` and `model.safetensors` into `folder`; see `multiresnet.pretrained`."""
        pretrained.save(self, self.config, folder)

    @classmethod
    def from_pretrained(cls, folder: pretrained.Folder) -> UNet:
        """Read a model that `save_pretrained` wrote. Only a local folder: nothing is ever downloaded or unpickled."""
        return pretrained.load(cls, folder)

    def _check(self, x: Tensor, emb: Emb | None) -> None:
        dtype = next(self.parameters()).dtype
        check_input(x, in_channels=self.in_channels, spatial_dims=self.space.spatial_dims, dtype=dtype)
        check_emb(emb, emb_channels=self.emb_channels, batch=x.shape[0], tokens=self.attends)
