"""Lightning modules: what is trained on what, around any `torch.nn.Module`."""

from .base import Task as Task
from .checkpoints import AtomicCheckpointIO as AtomicCheckpointIO
from .checkpoints import checkpoints as checkpoints
from .checkpoints import newest_whole_checkpoint as newest_whole_checkpoint
from .compute import Compute as Compute
from .compute import default_precision as default_precision
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
    "StagedTraining",
    "SurrogateTask",
    "Task",
    "checkpoints",
    "default_precision",
    "newest_whole_checkpoint",
    "relative_squared_error",
]
