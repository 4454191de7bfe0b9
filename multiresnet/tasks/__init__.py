"""Lightning modules: what is trained on what, around any `torch.nn.Module`."""

from .base import Task as Task
from .checkpointing import AtomicCheckpointIO as AtomicCheckpointIO
from .checkpointing import StepCheckpoint as StepCheckpoint
from .checkpointing import checkpoints as checkpoints
from .checkpointing import newest_whole_checkpoint as newest_whole_checkpoint
from .compute import Compute as Compute
from .compute import ShardedLevels as ShardedLevels
from .compute import default_precision as default_precision
from .compute import shard_levels as shard_levels
from .diffusion.moving_average import MovingAverage as MovingAverage
from .diffusion.quality import FeatureClassifier as FeatureClassifier
from .diffusion.quality import quality as quality
from .diffusion.quality import train_classifier as train_classifier
from .diffusion.sample_pictures import SamplePictures as SamplePictures
from .diffusion.task import DiffusionTask as DiffusionTask
from .hvae.network import HVAENetwork as HVAENetwork
from .hvae.pictures import HVAEPictures as HVAEPictures
from .hvae.task import HVAETask as HVAETask
from .network import Network as Network
from .segmentation.metrics import OverlapMetrics as OverlapMetrics
from .segmentation.task import SegmentationTask as SegmentationTask
from .staged import StagedTraining as StagedTraining
from .surrogate.metrics import nrmse as nrmse
from .surrogate.metrics import r_mse as r_mse
from .surrogate.metrics import relative_l2 as relative_l2
from .surrogate.metrics import relative_squared_error as relative_squared_error
from .surrogate.metrics import vrmse as vrmse
from .surrogate.spectrum import fourier_rmse as fourier_rmse
from .surrogate.spectrum import power_spectrum as power_spectrum
from .surrogate.spectrum import spectrum_error as spectrum_error
from .surrogate.task import SurrogateTask as SurrogateTask

__all__ = [
    "AtomicCheckpointIO",
    "Compute",
    "DiffusionTask",
    "FeatureClassifier",
    "HVAENetwork",
    "HVAEPictures",
    "HVAETask",
    "MovingAverage",
    "Network",
    "OverlapMetrics",
    "SamplePictures",
    "SegmentationTask",
    "ShardedLevels",
    "StagedTraining",
    "StepCheckpoint",
    "SurrogateTask",
    "Task",
    "checkpoints",
    "default_precision",
    "fourier_rmse",
    "newest_whole_checkpoint",
    "nrmse",
    "power_spectrum",
    "quality",
    "r_mse",
    "relative_l2",
    "relative_squared_error",
    "shard_levels",
    "spectrum_error",
    "train_classifier",
    "vrmse",
]
