"""Data: what a practitioner brings, read and served by Lightning data modules, and solvers that make PDE data."""

from .augment import Augment as Augment
from .files import TrajectoryFile as TrajectoryFile
from .generate import generate as generate
from .image_folder import ImageDataModule as ImageDataModule
from .image_masks import ImageMaskDataModule as ImageMaskDataModule
from .loading import make_loader as make_loader
from .navier_stokes import Physics as Physics
from .navier_stokes import evolve as evolve
from .navier_stokes import navier_stokes as navier_stokes
from .shallow_water import shallow_water as shallow_water
from .spectral import spectral_resample as spectral_resample
from .spectral import velocity as velocity
from .steady import *  # noqa
from .trajectories import TrajectoryDataModule as TrajectoryDataModule
