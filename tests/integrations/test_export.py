"""ONNX files of the core's networks, run by onnxruntime at other sizes than they were exported with."""

import warnings

import numpy as np
import pytest
import torch
from torch.export import Dim

from multiresnet import MultiResNet, ResidualUNet
from multiresnet.spaces import Haar
from multiresnet.testing import randomise

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
MIXED = (("reflect", "zeros"), "replicate")


@pytest.mark.compile
@pytest.mark.parametrize(
    ("build", "spatial_dims", "boundary", "options"),
    [
        (MultiResNet, 2, "zeros", {"sweeps": 2}),
        (MultiResNet, 2, MIXED, {"block": ("residual", "attention"), "delta": True}),
        (MultiResNet, 3, "zeros", {"patch_levels": 0}),
        (ResidualUNet, 2, "periodic", {}),
    ],
)
def test_one_file_serves_odd_and_even_sizes(build, spatial_dims, boundary, options, tmp_path):
    net = build(2, 1, space=Haar(spatial_dims, boundary), channels=(4, 6), num_blocks=1, **options)
    net = randomise(net, 0.2).eval()
    x = torch.randn(2, 2, *(19, 26, 21)[:spatial_dims])
    sizes = {axis: Dim.AUTO for axis in (0, *range(2, x.ndim))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(net, (x,), dynamo=True, dynamic_shapes=(sizes,), verbose=False)
    program.save(str(tmp_path / "net.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for batch, *size in [(3, 19, 26, 21), (1, 16, 16, 16), (2, 33, 40, 17), (1, 9, 7, 11)]:
        x = torch.randn(batch, 2, *size[:spatial_dims])
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(y, net(x).detach(), rtol=1e-4, atol=1e-4)
