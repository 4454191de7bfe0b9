"""Lightning modules: what is trained on what, around any `torch.nn.Module`."""

from .base import Task as Task
from .checkpoints import AtomicCheckpointIO as AtomicCheckpointIO
from .checkpoints import StepCheckpoint as StepCheckpoint
from .checkpoints import checkpoints as checkpoints
from .checkpoints import newest_whole_checkpoint as newest_whole_checkpoint
from .compute import Compute as Compute
from .compute import ShardedLevels as ShardedLevels
from .compute import default_precision as default_precision
from .compute import shard_levels as shard_levels
from .diffusion import DiffusionTask as DiffusionTask
from .network import Network as Network
from .sample_pictures import SamplePictures as SamplePictures
from .segmentation import SegmentationTask as SegmentationTask
from .staged import StagedTraining as StagedTraining
from .surrogate import SurrogateTask as SurrogateTask
from .surrogate_metrics import relative_squared_error as relative_squared_error

__all__ = [
    "AtomicCheckpointIO",
    "Compute",
    "DiffusionTask",
    "Network",
    "SamplePictures",
    "SegmentationTask",
    "ShardedLevels",
    "StagedTraining",
    "StepCheckpoint",
    "SurrogateTask",
    "Task",
    "checkpoints",
    "default_precision",
    "newest_whole_checkpoint",
    "relative_squared_error",
    "shard_levels",
]
