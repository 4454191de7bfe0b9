"""Nested spaces: what the input and output of every level are made of, how to project and how to embed."""

from multiresnet.spaces.base import Space as Space
from multiresnet.spaces.haar import Haar as Haar
from multiresnet.spaces.hat import Hat as Hat
from multiresnet.spaces.mesh import Mesh as Mesh
from multiresnet.spaces.recommend import Recommendation as Recommendation
from multiresnet.spaces.recommend import recommend as recommend
from multiresnet.spaces.sphere import Sphere as Sphere
from multiresnet.spaces.triangle import Triangle as Triangle
from multiresnet.spaces.wavelet import Wavelet as Wavelet
