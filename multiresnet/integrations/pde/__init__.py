"""Multi-ResNets in the calling conventions of The Well, PDEArena and neuraloperator. Importing this module needs none of them."""

from torch import nn

from multiresnet.integrations.pde.arena import ArenaMultiResNet as ArenaMultiResNet
from multiresnet.integrations.pde.well import WellMultiResNet as WellMultiResNet


def neuralop_class() -> type[nn.Module]:
    """`MultiResNetOperator`, a subclass of neuraloperator's `BaseModel`; the call registers it there as `"MultiResNet"`.

    Raises:
        ImportError: neuraloperator is not installed.

    Examples:
        >>> import torch
        >>> net = neuralop_class()(in_channels=1, out_channels=1, hidden_channels=8)
        >>> net(x=torch.zeros(2, 1, 16, 16), y=torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """
    from multiresnet.integrations.pde.neuralop import MultiResNetOperator

    return MultiResNetOperator
