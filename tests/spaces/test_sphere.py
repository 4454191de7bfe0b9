"""`Sphere` against the geometry of HEALPix as astropy-healpix knows it."""

import math
import time

import lightning
import numpy as np
import pytest
import torch

from multiresnet import MultiResNet, StaticFields
from multiresnet.data import TrajectoryDataModule, sphere_advection
from multiresnet.spaces import Sphere
from multiresnet.tasks import SurrogateTask
from multiresnet.testing import randomise

healpix = pytest.importorskip("astropy_healpix", reason="needs astropy-healpix")
from astropy.coordinates import angular_separation  # noqa: E402


@pytest.mark.parametrize("nside", [2, 8])
def test_directions_are_those_of_astropy(nside):
    space = Sphere(nside)
    longitude, latitude = space.coordinates()
    theirs = healpix.healpix_to_xyz(range(12 * nside**2), nside, order="nested")
    assert np.abs(space.directions().numpy() - np.stack(theirs, 1)).max() < 1e-12
    assert latitude.abs().max() < math.pi / 2 and 0 <= longitude.min() and longitude.max() < 2 * math.pi


@pytest.mark.parametrize("nside", [4, 16])
def test_neighbours_touch_and_are_mutual(nside):
    """Within 1.6 cell diagonals, at right angles in turn; 24 cells have one neighbour less, and see themselves instead."""
    space = Sphere(nside)
    table = space.table(0)
    cells = len(table)
    own = torch.arange(cells)
    assert torch.equal(table[:, 0], own)
    again = (table[:, 1:] == own[:, None]).sum(1)
    assert sorted(again.tolist()) == [0] * (cells - 24) + [1] * 24
    longitude, latitude = (c.numpy() for c in space.coordinates())
    seen = table[:, 1:].numpy()
    distance = angular_separation(longitude[:, None], latitude[:, None], longitude[seen], latitude[seen])
    side = math.sqrt(4 * math.pi / cells)
    assert distance.max() < 2.5 * side
    pairs = {(i, j) for i, row in enumerate(table.tolist()) for j in row if i != j}
    assert pairs == {(j, i) for i, j in pairs}


def test_a_parent_lies_where_its_children_are():
    space = Sphere(16)
    mean = space.directions().unflatten(0, (-1, 4)).mean(1)
    mean = mean / mean.norm(dim=1, keepdim=True)
    assert (mean * space.directions(1)).sum(1).min() > math.cos(0.02)


def test_pooling_keeps_the_integral_and_smooth_fields(tolerance):
    space = Sphere(32)
    field = space.directions()[:, 2].square().view(1, 1, -1)  # mean 1 / 3
    pooled = field
    for level in range(3):
        pooled = space.project(pooled, level)
        assert abs(pooled.mean() - field.mean()) <= tolerance(field.dtype)
        assert (pooled[0, 0] - space.directions(level + 1)[:, 2].square()).abs().max() < 0.03
    assert abs(field.mean() - 1 / 3) < 1e-4


def quarter_turn(space):
    """The order of the cells after a turn by 90 degrees about the axis, a symmetry of HEALPix."""
    longitude, latitude = (c.numpy() for c in space.coordinates())
    from astropy.units import rad

    turned = healpix.lonlat_to_healpix((longitude + math.pi / 2) * rad, latitude * rad, space.nside, order="nested")
    return torch.from_numpy(np.asarray(turned))


def test_networks_commute_with_quarter_turns_about_the_axis(tolerance):
    """No seam at longitude 0, and the taps of the polar faces turn along."""
    space = Sphere(8)
    order = quarter_turn(space)
    assert sorted(order.tolist()) == list(range(768)) and not torch.equal(order, torch.arange(768))
    net = randomise(MultiResNet(2, 1, space=space, channels=(8, 8, 8), num_blocks=1).double(), 0.2)
    x = torch.randn(2, 2, 768, dtype=torch.float64)
    assert (net(x[..., order]) - net(x)[..., order]).abs().max() <= 10 * tolerance(x.dtype)


def test_ring_order_and_back():
    space, x = Sphere(8), torch.arange(768.0).expand(2, 3, -1)
    longitude, latitude = healpix.healpix_to_lonlat(range(768), 8, order="ring")
    nested = space.from_ring(torch.from_numpy(latitude.value))
    assert torch.allclose(nested, space.coordinates()[1])
    assert torch.equal(space.to_ring(space.from_ring(x)), x)


def test_values_at_points():
    space = Sphere(16)
    longitude, latitude = space.coordinates()
    x = torch.randn(2, 3, space.cells(0))
    assert torch.equal(space.sample(x, longitude, latitude), x)
    assert space.sample(x, torch.zeros(4, 5), torch.zeros(4, 5)).shape == (2, 3, 4, 5)


def test_gradients_of_the_convolution():
    conv = randomise(Sphere(2).conv(1, 2).double())
    x = torch.randn(1, 1, 48, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, x)
    assert torch.autograd.gradgradcheck(conv, x)


@pytest.mark.parametrize("nside", [0, 1, 3, 12, 2.0, True])
def test_nside_is_a_power_of_two(nside):
    with pytest.raises(ValueError, match="nside must be a power of two >= 2"):
        Sphere(nside)


def test_fields_of_another_nside():
    with pytest.raises(ValueError, match="levels of 768, 192, 48, 12 cells, none of 100"):
        MultiResNet(1, 1, space=Sphere(8), channels=(4, 4), num_blocks=1)(torch.zeros(1, 1, 100))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_training_at_nside_64(capsys):
    """49152 cells: a few minutes of training on a processor already forecast."""
    space = Sphere(64)
    points = tuple(angle.numpy() for angle in space.coordinates())
    data = TrajectoryDataModule(
        sphere_advection(*points, trajectories=10, frames=6), boundary="replicate", batch_size=4
    )
    torch.manual_seed(0)
    net = MultiResNet(3 + 1, 1, space=space, channels=(16, 32, 48, 64, 64), num_blocks=1, delta=True)
    task = SurrogateTask(StaticFields(net, space.directions().T.float()), lr=2e-3)
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = lightning.Trainer(max_steps=300, accelerator="cpu", gradient_clip_val=1.0, **quiet)
    start = time.perf_counter()
    trainer.fit(task, data)
    seconds = time.perf_counter() - start
    new = torch.from_numpy(sphere_advection(*points, trajectories=2, frames=2, first=10))
    first, truth = new[:, :1], new[:, 1]
    with torch.no_grad():
        forecast = task.eval().rollout(first, steps=1)[:, 0]
    wrong, persistence = ((guess - truth).norm() / truth.norm() for guess in (forecast, first[:, 0]))
    with capsys.disabled():
        print(
            f"\nnside 64: {300 / seconds:.2f} steps of 4 fields a second; error {wrong:.3f}, persistence {persistence:.3f}"
        )
    assert wrong < 0.7 * persistence
