"""Models of which the optimum is known: what a network should learn, to the last digit (arXiv 2404.18444, arXiv 2309.11420)."""

from multiresnet.graphical.belief_propagation import BeliefPropagationUNet
from multiresnet.graphical.couplings import Stencil
from multiresnet.graphical.crf import QuadtreeCRF
from multiresnet.graphical.gaussian import GaussianField
from multiresnet.graphical.grid import GridIsing
from multiresnet.graphical.hierarchy import GenerativeHierarchicalModel, Posterior
from multiresnet.graphical.ising import ConditionalIsing, Ising, RestrictedBoltzmannMachine
from multiresnet.graphical.sampler import as_noise_prediction, exponential_integrator, two_phase_grid
from multiresnet.graphical.sparse_coding import SparseCoding, UnrolledAMP
from multiresnet.graphical.variational import (
    ReLUTanh,
    UnrolledMeanField,
    VariationalDenoiser,
    depth_for,
    overlap_correction,
)

__all__ = [
    "BeliefPropagationUNet",
    "ConditionalIsing",
    "GaussianField",
    "GenerativeHierarchicalModel",
    "GridIsing",
    "Ising",
    "Posterior",
    "QuadtreeCRF",
    "ReLUTanh",
    "RestrictedBoltzmannMachine",
    "SparseCoding",
    "Stencil",
    "UnrolledAMP",
    "UnrolledMeanField",
    "VariationalDenoiser",
    "as_noise_prediction",
    "depth_for",
    "exponential_integrator",
    "overlap_correction",
    "two_phase_grid",
]
