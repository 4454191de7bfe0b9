"""Multi-ResNets in MONAI: a network with the signature of MONAI's `UNet`, and the Haar pyramid as backbone of `FlexibleUNet`."""

from multiresnet.integrations.host import check_host

check_host("monai", tested=">=1.6,<1.7", extra="medical")

from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE

from multiresnet.integrations.monai.encoder import HaarEncoder as HaarEncoder
from multiresnet.integrations.monai.network import MultiResNet as MultiResNet


def register() -> None:
    """Make `"haar"` and `"haar_2d_c1"` ... `"haar_3d_c16"` backbones of `FlexibleUNet`. Importing this module does it.

    Examples:
        >>> from monai.networks.nets import FlexibleUNet
        >>> register()
        >>> FlexibleUNet(in_channels=1, out_channels=2, backbone="haar_3d_c1", spatial_dims=3).encoder.channels
        (8, 8, 8, 8, 8)
    """
    FLEXUNET_BACKBONE.register_class(HaarEncoder)


register()
