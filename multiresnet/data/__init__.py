"""Data: trajectories from our own solver or from a file, and the Lightning data module that serves them."""

from .files import TrajectoryFile as TrajectoryFile
from .navier_stokes import Physics as Physics
from .navier_stokes import evolve as evolve
from .navier_stokes import navier_stokes as navier_stokes
from .spectral import spectral_resample as spectral_resample
from .spectral import velocity as velocity
from .trajectories import TrajectoryDataModule as TrajectoryDataModule

__all__ = [
    "Physics",
    "TrajectoryDataModule",
    "TrajectoryFile",
    "evolve",
    "navier_stokes",
    "spectral_resample",
    "velocity",
]
