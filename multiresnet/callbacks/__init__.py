"""Lightning callbacks that watch a run: curves, contact sheets, predictions on disk, progress."""

from .contact_sheet import ContactSheet as ContactSheet
from .learning_curves import LearningCurves as LearningCurves
from .predictions import PredictionWriter as PredictionWriter
from .progress import Progress as Progress

__all__ = ["ContactSheet", "LearningCurves", "PredictionWriter", "Progress"]
