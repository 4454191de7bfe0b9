"""Images and volumes of any size through a network, tile by tile, equal to one pass over the whole."""

from __future__ import annotations

import functools
import itertools
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from multiresnet.checks import check_positive
from multiresnet.tile_plan import PerAxis, Span, Tile, plan
from multiresnet.tta import Augmented


class Array(Protocol):
    """What is read and written: a tensor, a numpy array or memory map, an HDF5 or Zarr array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def tiled_predict(
    net: nn.Module,
    x: Array,
    *,
    tile: PerAxis | None = None,
    halo: PerAxis | None = None,
    batch_size: int = 1,
    emb: Tensor | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    out: Any = None,
    device: torch.device | str | None = None,
) -> Any:
    """Run a network over images or volumes of any size, tile by tile, in bounded memory.

    Equal to `net(x)` to rounding for our networks with `norm=None` or `"batch"`: with every boundary rule, odd sizes, all
    skips and sweeps, alone and as `Augmented(net)`. Close, but not equal, are

    - group, instance and layer norms, whose statistics are those of the window. Measured with group norm at the default tile
      and halo: mean difference 1.4 % of the logits' spread, 0.13 % of the decisions, a step across tile borders one eighth
      of that between neighbouring samples; 2.5 times as much for tiles of 128. Larger tiles help, then larger halos;
    - attention, which sees everything, and networks that don't say how far they see: `halo` must be given;
    - a smaller `halo` than the default. Far samples count little: half of it changed 0.001 % of the decisions, a quarter
      0.1 %, and it saves most of the work in 3-D, where the 200 samples of the default network cost the most;
    - a periodic axis whose size is no multiple of the coarsest cell, with `halo` given: tiles that reach over its ends see
      shifted cells. Without `halo` and `tile` such an axis is kept whole, which is exact.

    The network runs in eval mode, without gradients; the mode of each module is restored afterwards.

    Args:
        net: maps (N, C, *spatial) to (N, C', *spatial); one of ours, `Augmented`, or any module with `halo` given.
        x: (N, C, *spatial), tensor or array-like (numpy, memory map, HDF5, Zarr); only windows of it are read. Floating
            types are converted to the network's.
        tile: largest side of what one tile writes, in samples, one for all axes or one for each; the network sees a halo
            more on each side. `None`: 512 in 2-D, 96 in 3-D, 65536 in 1-D, or the halo where that is larger.
        halo: samples seen beyond a tile on each side, rounded up to whole cells. `None`: half of `net.receptive_field`.
            For a network of unknown cells all windows start at multiples of gcd(tile, halo).
        batch_size: windows in one pass.
        emb: (N, emb_channels), conditioning of each entry of `x`.
        prepare: applied to each window before the network, sample by sample in space, such as `lambda t: t.float() / 255`.
        transform: applied to each predicted core (n, C', *core) before it is stored, such as
            `lambda y: y.argmax(1).byte()`; it may change the channels or drop them.
        out: where to write: an array-like of shape (N, C', *spatial), or what `transform` makes of that.
        device: where the windows are sent; `None`: where the network is.

    Returns:
        `out`, or if that is `None` a tensor on the CPU.

    Raises:
        TypeError: `net` is no module, or `x` is not floating point and not made so by `prepare`.
        ValueError: wrong rank or shape, a tile smaller than the coarsest cell, no halo known, a periodic axis that cannot be
            cut exactly, or a network that changes the spatial size.

    Examples:
        >>> from multiresnet import MultiResNet
        >>> net = MultiResNet(1, 2, channels=(8, 8), num_blocks=1, norm=None)
        >>> x = torch.randn(1, 1, 101, 83)
        >>> y = tiled_predict(net, x, tile=32)
        >>> torch.allclose(y, net(x), atol=1e-5)
        True
        >>> tiled_predict(net, x, tile=32, transform=lambda y: y.argmax(1).byte()).shape
        torch.Size([1, 101, 83])
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}")
    shape = tuple(getattr(x, "shape", ()))
    if not 3 <= len(shape) <= 5 or 0 in shape:
        raise ValueError(
            f"x must be an array (N, C, *spatial) with 1, 2 or 3 spatial axes, none empty; got {type(x).__name__}, {shape}"
        )
    if x is out:
        raise ValueError("out is x: later windows would read predictions; give another array")
    if emb is not None and emb.shape[0] != shape[0]:
        raise ValueError(f"emb must have one row for each of the {shape[0]} entries of x, got {tuple(emb.shape)}")
    check_positive(batch_size=batch_size)
    mean = net if isinstance(net, Augmented) else Augmented(net, flips=False)
    count, size = shape[0], shape[2:]
    group = mean.symmetries(len(size))
    weight = next((p for p in net.parameters() if p.is_floating_point()), None)
    dtype = None if weight is None else weight.dtype
    device = weight.device if weight is not None and device is None else device

    def predict(entries: list[int], tiles: list[Tile]) -> Tensor:
        condition = None if emb is None else emb[entries].to(device=device)

        def term(g: int) -> Tensor:
            v = torch.stack([_read(x, entry, tile.windows[g]) for entry, tile in zip(entries, tiles)]).to(device=device)
            v = v if prepare is None else prepare(v)
            if not v.is_floating_point():
                raise TypeError(f"x holds {v.dtype}; make it floating point, e.g. prepare=lambda t: t.float() / 255")
            return mean.term(v.to(dtype=dtype), group[g], condition)[tiles[0].inside(g)]

        y = functools.reduce(torch.add, map(term, range(len(group)))) / len(group)
        return y if transform is None else transform(y)

    with _evaluating(net):
        for entries, tiles in _batches(plan(mean.net, size, tile, halo, group), count, batch_size):
            y = predict(entries, tiles)
            out = _output(out, y, tiles[0].core, (count, *size))
            for entry, tile_, part in zip(entries, tiles, y):
                _write(out, (entry, ..., *(slice(*span) for span in tile_.core)), part)
            _release(x)
            _release(out)
    return out


def _batches(tiles: list[Tile], count: int, batch_size: int) -> Iterator[tuple[list[int], list[Tile]]]:
    """All pairs of an entry of the batch and a tile, up to `batch_size` of one layout together."""
    jobs = sorted(itertools.product(range(count), tiles), key=lambda job: job[1].layout)
    for _, alike in itertools.groupby(jobs, key=lambda job: job[1].layout):
        entries, same = zip(*alike)
        for start in range(0, len(same), batch_size):
            part = slice(start, start + batch_size)
            yield list(entries[part]), list(same[part])


def _read(x: Array, entry: int, window: Sequence[Span]) -> Tensor:
    """(C, *window) of `x[entry]`, a copy; read in pieces where the window wraps around."""
    pieces = [_pieces(span, size) for span, size in zip(window, x.shape[2:])]
    v: Tensor | None = None
    for piece in itertools.product(*pieces):
        block = x[(entry, slice(None), *(source for source, _ in piece))]
        if not isinstance(block, Tensor):  # a copy in native byte order: torch takes neither read-only nor swapped data
            block = torch.from_numpy(np.array(block, dtype=np.dtype(block.dtype).newbyteorder("=")))
        if v is None:
            v = block.new_empty(block.shape[0], *(stop - start for start, stop in window))
        v[(slice(None), *(target for _, target in piece))] = block
    return cast(Tensor, v)


def _pieces(span: Span, size: int) -> list[tuple[slice, slice]]:
    """(where in the field, where in the window) for each stretch of a window that may wrap around."""
    pieces, position = [], span[0]
    while position < span[1]:
        start = position % size
        length = min(size - start, span[1] - position)
        pieces.append((slice(start, start + length), slice(position - span[0], position - span[0] + length)))
        position += length
    return pieces


def _output(out: Any, y: Tensor, core: Sequence[Span], shape: tuple[int, ...]) -> Any:
    """Where all tiles go, by the shape of the first one: `out` if given."""
    sides = tuple(stop - start for start, stop in core)
    if tuple(y.shape[y.ndim - len(sides) :]) != sides or y.ndim <= len(sides):
        raise ValueError(
            f"transform must keep batch and space (n, ..., {', '.join(map(str, sides))}); got {tuple(y.shape)}"
        )
    wanted = (shape[0], *y.shape[1 : y.ndim - len(sides)], *shape[1:])
    if out is None:
        return torch.empty(wanted, dtype=y.dtype)
    if tuple(out.shape) != wanted:
        raise ValueError(f"out must have shape {wanted}, got {tuple(out.shape)}")
    return out


def _write(out: Any, index: tuple[Any, ...], part: Tensor) -> None:
    if not isinstance(out, Tensor):
        part = part.float() if part.dtype == torch.bfloat16 else part  # numpy has no bfloat16
        out[index] = part.cpu().numpy()
    else:
        out[index] = part.to(out.device)


def _release(array: object) -> None:
    """Give back the pages of a memory map, which would count as ours until the system runs short. No data are lost."""
    mapping = getattr(array, "_mmap", None)
    if isinstance(array, np.memmap) and array.mode != "c" and isinstance(mapping, mmap.mmap):
        if hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each module has its own mode again."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
