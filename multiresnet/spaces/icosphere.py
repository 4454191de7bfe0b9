"""The icosahedron on the unit sphere, and its triangles divided into four."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def icosphere_corners(levels: int) -> Array:
    """(20 * 4**levels, 3, 3): corners of the triangles on the unit sphere; triangles 4 i ... 4 i + 3 divide triangle i."""
    golden = (1 + 5**0.5) / 2
    points = np.array([(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)])
    points = np.concatenate([np.roll(points, shift, 1) for shift in range(3)])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    near = [[j for j in range(12) if i != j and points[i] @ points[j] > 0.4] for i in range(12)]
    faces = [(i, j, k) for i in range(12) for j in near[i] for k in near[i] if i < j < k and k in near[j]]
    corners = points[np.array(faces)]
    for _ in range(levels):
        a, b, c = (corners[:, i] for i in range(3))
        ab, bc, ca = ((p + q) / np.linalg.norm(p + q, axis=1, keepdims=True) for p, q in ((a, b), (b, c), (c, a)))
        parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (bc, ca, ab)]
        corners = np.stack([np.stack(part, 1) for part in parts], 1).reshape(-1, 3, 3)
    return cast("Array", corners)


def corner_names(corners: Array) -> NDArray[np.int64]:
    """(cells, 3): a number for each corner, the same for the same point."""
    keys = [tuple(point) for point in np.round(corners.reshape(-1, 3) * 1e7).astype(np.int64).tolist()]
    names = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([names[key] for key in keys]).reshape(len(corners), 3)


def spherical_areas(corners: Array) -> Array:
    """Of spherical triangles (van Oosterom and Strackee 1983)."""
    a, b, c = (corners[:, i] for i in range(3))
    volume = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)))
    dots = sum(np.einsum("ij,ij->i", p, q) for p, q in ((a, b), (b, c), (c, a)))
    return cast("Array", 2 * np.arctan2(volume, 1 + dots))
