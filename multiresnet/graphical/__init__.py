"""Models of which the optimum is known: what a network should learn, to the last digit (arXiv 2404.18444, arXiv 2309.11420)."""

from multiresnet.graphical.belief_propagation import BeliefPropagationUNet
from multiresnet.graphical.crf import QuadtreeCRF
from multiresnet.graphical.hierarchy import GenerativeHierarchicalModel, Posterior

__all__ = ["BeliefPropagationUNet", "GenerativeHierarchicalModel", "Posterior", "QuadtreeCRF"]
