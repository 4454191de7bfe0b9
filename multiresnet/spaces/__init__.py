"""Nested spaces: what the input and output of every level are made of, how to project and how to embed."""

from multiresnet.spaces.base import Space as Space
from multiresnet.spaces.haar import Haar as Haar
