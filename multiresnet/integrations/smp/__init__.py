"""Multi-ResNets in segmentation-models-pytorch: the Haar pyramid as an encoder, and `MultiResNet` as an architecture."""

from multiresnet.integrations.host import check_host

check_host("segmentation-models-pytorch", tested=">=0.6,<0.7")

import segmentation_models_pytorch

from multiresnet.integrations.smp.encoder import HaarEncoder as HaarEncoder
from multiresnet.integrations.smp.model import MultiResNet as MultiResNet


def register() -> None:
    """Make `"haar"` and `"haar_ll"` encoders and `"multiresnet"` an architecture of smp. Importing this module does it.

    Examples:
        >>> import segmentation_models_pytorch as smp
        >>> register()
        >>> smp.encoders.get_encoder("haar", weights=None).out_channels
        [3, 12, 12, 12, 12, 12]
        >>> smp.create_model("multiresnet", "haar", classes=2).name
        'multiresnet-haar'
    """
    for name, details in (("haar", True), ("haar_ll", False)):
        entry = {"encoder": HaarEncoder, "pretrained_settings": {}, "params": {"details": details}}
        segmentation_models_pytorch.encoders.encoders[name] = entry
    segmentation_models_pytorch.MODEL_ARCHITECTURES_MAPPING["multiresnet"] = MultiResNet
    segmentation_models_pytorch.MultiResNet = MultiResNet  # where smp.from_pretrained looks for the class


register()
