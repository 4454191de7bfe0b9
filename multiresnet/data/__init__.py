"""Data: what a practitioner brings, read and served by Lightning data modules, and solvers that make PDE data."""

from .fields.files import TrajectoryFile as TrajectoryFile
from .fields.folders import TrajectoryFolder as TrajectoryFolder
from .fields.folders import open_trajectories as open_trajectories
from .fields.steady import PairDataModule as PairDataModule
from .fields.trajectories import TrajectoryDataModule as TrajectoryDataModule
from .images.augment import Augment as Augment
from .images.image_folder import ImageDataModule as ImageDataModule
from .images.image_masks import ImageMaskDataModule as ImageMaskDataModule
from .images.masks import MaskCode as MaskCode
from .images.on_triangle import TriangleImageDataModule as TriangleImageDataModule
from .images.reading import read_image as read_image
from .images.reading import read_mask as read_mask
from .loading import Draw as Draw
from .loading import make_loader as make_loader
from .solvers.burgers import burgers as burgers
from .solvers.darcy import darcy as darcy
from .solvers.dirichlet import heat as heat
from .solvers.dirichlet import poisson as poisson
from .solvers.dirichlet import solve_poisson as solve_poisson
from .solvers.generate import generate as generate
from .solvers.generators import GENERATORS as GENERATORS
from .solvers.kuramoto_sivashinsky import kuramoto_sivashinsky as kuramoto_sivashinsky
from .solvers.navier_stokes import Physics as Physics
from .solvers.navier_stokes import evolve as evolve
from .solvers.navier_stokes import navier_stokes as navier_stokes
from .solvers.shallow_water import shallow_water as shallow_water
from .solvers.spectral import spectral_resample as spectral_resample
from .solvers.spectral import velocity as velocity
from .solvers.sphere_advection import sphere_advection as sphere_advection
from .solvers.triangle_heat import triangle_heat as triangle_heat

__all__ = [
    "GENERATORS",
    "Augment",
    "Draw",
    "ImageDataModule",
    "ImageMaskDataModule",
    "MaskCode",
    "PairDataModule",
    "Physics",
    "TrajectoryDataModule",
    "TrajectoryFile",
    "TriangleImageDataModule",
    "TrajectoryFolder",
    "burgers",
    "darcy",
    "evolve",
    "generate",
    "kuramoto_sivashinsky",
    "make_loader",
    "navier_stokes",
    "open_trajectories",
    "read_image",
    "read_mask",
    "shallow_water",
    "spectral_resample",
    "heat",
    "poisson",
    "solve_poisson",
    "sphere_advection",
    "triangle_heat",
    "velocity",
]
