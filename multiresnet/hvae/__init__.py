"""Hierarchical VAEs on nested spaces, with weights shared between the steps of a diffusion (paper B, arXiv 2301.08187)."""

from .cells import Bottleneck as Bottleneck
from .cells import Step as Step
from .cells import TwoStepCell as TwoStepCell
from .decoder import Move as Move
from .layout import LAYOUTS as LAYOUTS
from .layout import Resolution as Resolution
from .likelihoods import Bernoulli as Bernoulli
from .likelihoods import DiscretizedLogisticMixture as DiscretizedLogisticMixture
from .likelihoods import Gaussian as Gaussian
from .likelihoods import Likelihood as Likelihood
from .model import HVAE as HVAE
from .model import Evidence as Evidence
from .sharing import share_weights as share_weights
from .trace import Trace as Trace
from .trace import trace as trace

__all__ = [
    "HVAE",
    "LAYOUTS",
    "Bernoulli",
    "Bottleneck",
    "DiscretizedLogisticMixture",
    "Evidence",
    "Gaussian",
    "Likelihood",
    "Move",
    "Resolution",
    "Step",
    "Trace",
    "TwoStepCell",
    "share_weights",
    "trace",
]
