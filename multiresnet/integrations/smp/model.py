"""A Multi-ResNet as an architecture of smp: any of its encoders, the decoder of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from segmentation_models_pytorch.base import ClassificationHead, SegmentationModel, initialization
from segmentation_models_pytorch.base.hub_mixin import supports_config_loading
from segmentation_models_pytorch.base.modules import Activation
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from multiresnet.assembly import Blocks, decoder_parts, make_levels
from multiresnet.checks import check_input, check_positive, explain_typos
from multiresnet.integrations.scripted import Scripted
from multiresnet.integrations.smp.decoder import Decoder, Masks, Skips
from multiresnet.layers import NormName
from multiresnet.spaces import Haar

PARAMETER_FREE = ("haar", "haar_ll", "tu-haar_pyramid", "tu-haar_pyramid_ll")


class MultiResNet(SegmentationModel):  # type: ignore[misc]  # smp has no types
    """`multiresnet.MultiResNet` as a model of smp; with another encoder, its features take the place of the Haar pyramid.

    Tuples run from coarse to fine, as everywhere in smp. If they are longer than needed, the finest levels and the last sweeps
    count, so the defaults serve every depth; at `encoder_depth=4` they are the preset `"segmentation"` of the core.

    Args:
        encoder_name: `"haar"`, `"haar_ll"`, or any other encoder of smp.
        encoder_depth: number of halvings, 1 to 5.
        encoder_weights: as in smp; `"haar"` and the like have no weights and ignore it.
        decoder_channels: width of each level.
        num_blocks: residual blocks of each level; one number for all, one for each, or one such tuple for each sweep.
        sweeps: coarse-to-fine passes.
        norm: `"group"`, `"batch"`, `"instance"`, `"layer"` or `None`.
        in_channels: channels of the image.
        classes: channels of the masks.
        activation: of the masks: a name that smp knows, a callable, or `None`.
        aux_params: of smp's classification head on the coarsest feature: `classes`, `pooling`, `dropout`, `activation`.

    Shape:
        (N, in_channels, H, W) -> (N, classes, H, W), any size that the encoder takes; with `aux_params` a pair of that and
        the labels, (N, classes of `aux_params`).

    Raises:
        TypeError: an unknown argument.
        ValueError: fewer channels or blocks than levels, or none of them; an image that does not fit the model.

    Examples:
        >>> import torch
        >>> net = MultiResNet("haar", encoder_depth=3, classes=2)
        >>> net(torch.zeros(1, 3, 50, 37)).shape
        torch.Size([1, 2, 50, 37])
    """

    requires_divisible_input_shape = False

    @supports_config_loading  # type: ignore[untyped-decorator]
    @explain_typos
    def __init__(
        self,
        encoder_name: str = "haar",
        encoder_depth: int = 5,
        encoder_weights: str | None = None,
        *,
        decoder_channels: Sequence[int] = (128, 96, 64, 48, 32),
        num_blocks: int | Blocks = ((1, 1, 1, 1, 1), (1, 1, 2, 2, 1)),
        sweeps: int = 2,
        norm: NormName | None = "group",
        in_channels: int = 3,
        classes: int = 1,
        activation: str | Callable[..., object] | None = None,
        aux_params: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, classes=classes)
        weights = None if encoder_name in PARAMETER_FREE else encoder_weights
        self.encoder = get_encoder(encoder_name, in_channels=in_channels, depth=encoder_depth, weights=weights)
        self.in_channels = in_channels
        skips = Skips(self.encoder.out_channels)
        if len(decoder_channels) < skips.depth:
            raise ValueError(
                f"decoder_channels={tuple(decoder_channels)} has fewer entries than encoder_depth={skips.depth}; give one for each"
            )
        space = Haar(2)
        levels = make_levels(
            _finest(decoder_channels, skips.depth), _blocks(num_blocks, skips.depth, sweeps), "residual", sweeps
        )
        parts = decoder_parts(space, cast(Any, skips), levels, classes, "add", norm, nn.GELU, 0, lift=True)
        self.decoder = Decoder(space, parts["sweeps"], parts["restricts"])
        self.segmentation_head = nn.Sequential(Masks(space, parts["heads"], skips.depth), Activation(activation))
        self.classification_head = None
        if aux_params is not None:
            self.classification_head = ClassificationHead(self.encoder.out_channels[-1], **aux_params)
        self.name = f"multiresnet-{encoder_name}"
        self.initialize()

    def initialize(self) -> None:
        """Decoder and masks keep the initialisation of the core, with residual branches that start at zero."""
        if self.classification_head is not None:
            initialization.initialize_head(self.classification_head)

    def check_input_shape(self, x: Tensor) -> None:
        """Raise unless `x` is an image of the model's channels and type; smp calls it, every size is allowed."""
        dtype = next(self.decoder.parameters()).dtype
        check_input(x, in_channels=self.in_channels, spatial_dims=2, dtype=dtype)

    def __prepare_scriptable__(self) -> Scripted:
        return Scripted(self, self.in_channels)


def _finest(values: Iterable[int], depth: int) -> list[int]:
    """The `depth` last entries, finest first, as the core has them."""
    return list(values)[-depth:][::-1]


def _blocks(num_blocks: int | Blocks, depth: int, sweeps: int) -> int | Blocks:
    if isinstance(num_blocks, int):
        return num_blocks
    if all(isinstance(row, int) for row in num_blocks):
        return _finest(cast(Sequence[int], num_blocks), depth)
    return [_finest(row, depth) for row in cast(Sequence[Sequence[int]], num_blocks)][-sweeps:]
