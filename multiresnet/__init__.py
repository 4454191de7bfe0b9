"""Multi-ResNets: U-Nets with a parameter-free Haar encoder (arXiv 2305.19638)."""

from multiresnet import conditions as conditions
from multiresnet import spaces as spaces
from multiresnet import testing as testing
from multiresnet.blocks import Level as Level
from multiresnet.budget import count_macs as count_macs
from multiresnet.budget import count_parameters as count_parameters
from multiresnet.budget import count_saved_bytes as count_saved_bytes
from multiresnet.budget import match_budget as match_budget
from multiresnet.conditions import Constrained as Constrained
from multiresnet.context import Context as Context
from multiresnet.models import PRESETS as PRESETS
from multiresnet.models import MultiResNet as MultiResNet
from multiresnet.models import ResidualUNet as ResidualUNet
from multiresnet.paper import fold_tiled_skips as fold_tiled_skips
from multiresnet.preconditioned import Preconditioned as Preconditioned
from multiresnet.spaces.transform import haar_analysis as haar_analysis
from multiresnet.spaces.transform import haar_pyramid as haar_pyramid
from multiresnet.spaces.transform import haar_synthesis as haar_synthesis
from multiresnet.static import StaticFields as StaticFields
from multiresnet.tiling import tiled_predict as tiled_predict
from multiresnet.tta import Augmented as Augmented
from multiresnet.unet import UNet as UNet

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The diffusers models and the class that loads them; imports diffusers on first use.

    A saved pipeline names the package of a foreign model, and diffusers looks there for the class and for `ModelMixin`.
    """
    if name in ("MultiResNet2DModel", "MultiResNet2DConditionModel", "ModelMixin"):
        import multiresnet.integrations.diffusers as adapter

        return getattr(adapter, name)
    raise AttributeError(f"module 'multiresnet' has no attribute {name!r}")
