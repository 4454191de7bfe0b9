"""Against closed forms (Ornstein-Uhlenbeck, linear-Gaussian evidence), published parameter counts, and itself."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from multiresnet import spaces
from multiresnet.hvae import HVAE, Resolution, share_weights, trace
from multiresnet.spaces import Haar

SMALL = (
    Resolution(0, 8, cells=3, encoder_blocks=3),
    Resolution(1, 16, cells=4, encoder_blocks=2),
    Resolution(3, 16, cells=2),
)


def small(**options: object) -> HVAE:
    arguments: dict[str, object] = {"size": (8, 8), "resolutions": SMALL, "latent_channels": 4, **options}
    return HVAE(1, **arguments)  # type: ignore[arg-type]


def eight_bit(n: int, *shape: int) -> Tensor:
    return torch.randint(256, (n, *shape), generator=torch.Generator().manual_seed(0)) / 127.5 - 1


@pytest.mark.parametrize(
    ("name", "share", "count", "cells"),
    [
        ("cifar10", "none", 39_145_700, 43),
        ("imagenet32", "none", 119_280_868, 78),
        ("imagenet64", "none", 125_005_860, 75),
        ("cifar10", "per_resolution", 8_744_356, 43),
        ("imagenet32", "per_resolution", 15_230_628, 78),
        ("imagenet64", "per_resolution", 20_775_716, 75),
    ],
)
def test_published_parameter_counts(name: str, share: str, count: int, cells: int) -> None:
    with torch.device("meta"):
        model = HVAE.vdvae(name, share=share)  # type: ignore[arg-type]
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.num_latents == cells


# ---- closed forms --------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Per-channel affine maps of the input's channels: rows of `weight`, and `bias`."""

    def __init__(self, weight: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.weight = torch.tensor(weight, dtype=torch.float64)
        self.bias = torch.tensor(bias, dtype=torch.float64)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        return torch.einsum("oc,nc...->no...", self.weight, x) + self.bias.view(1, -1, 1, 1)


def linear_chain(cells: int, share: str, a: float, r: float, s: float, x0: float, noise: float = 1.0) -> HVAE:
    """The state is one number; drift a x, residual r x, noise s, and data that are the last state and Gaussian noise."""
    model = HVAE(
        1,
        size=(1, 1),
        resolutions=[Resolution(0, 1, cells=cells)],
        latent_channels=1,
        encoder="pyramid",
        likelihood="gaussian",
        share=share,  # type: ignore[arg-type]
    ).double()
    for cell in model.decoder.cells[0]:  # type: ignore[union-attr]
        cell.prior = Linear([[0], [0], [a]], [0, math.log(s), 0])
        cell.residual = Linear([[r]], [0])
        cell.project_latent = Linear([[1]], [0])
    model.head = Linear([[1], [0]], [0, math.log(noise)])
    nn.init.constant_(model.decoder.starts[0], x0)
    return model


def normal(mean: float, std: float) -> Normal:
    return Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))


def moments(model: HVAE) -> tuple[float, float]:
    """Mean and variance of the last state: it is linear in the latents, so one perturbation each gives them exactly."""
    k = model.num_latents
    *_, mean = model.decoder.walk(1, temperature=0.0)
    scales = [move.step.prior.scale for move in model.decoder.walk(1, temperature=0.0)]
    basis = torch.eye(k, dtype=torch.float64).view(k, k, 1, 1, 1)
    *_, moved = model.decoder.walk(k, latents=[scale * column for scale, column in zip(scales, basis.unbind(1))])
    effect = moved.step.state - mean.step.state
    return float(mean.step.state), float(effect.square().sum())


def test_shared_cells_tend_to_the_ornstein_uhlenbeck_process() -> None:
    table = {16: (0.48900, 0.32899), 256: (0.49867, 0.32749), 1024: (0.49915, 0.32741)}
    chain = linear_chain(16, "per_resolution", -0.7, -0.4, 0.9, 1.5)
    for steps, wanted in table.items():
        with torch.no_grad():
            found = moments(chain.refined(steps // 16))
        assert found == pytest.approx(wanted, abs=1e-5)
    rate = 0.7 + 0.4
    limit = (1.5 * math.exp(-rate), 0.81 * (1 - math.exp(-2 * rate)) / (2 * rate))
    assert limit == pytest.approx((0.499307, 0.327386), abs=1e-6)
    with torch.no_grad():
        errors = [[abs(x - y) for x, y in zip(moments(chain.refined(k)), limit)] for k in (8, 16)]
    for coarse, fine in zip(*errors):
        assert coarse / fine == pytest.approx(2, abs=0.02)  # first order


@pytest.mark.parametrize("cells", [1, 4])
def test_linear_gaussian_evidence_is_exact(cells: int) -> None:
    a, r, s, x0, noise = -0.3, 0.2, 0.8, 0.7, 0.5
    model = linear_chain(cells, "none", a, r, s, x0, noise)
    gain, spread = (1 + a) * (1 + r), 1 + r  # x <- gain x + spread z
    after, variance = 1.0, noise**2  # the data given the state: N(after * state, variance)
    for cell in reversed(model.decoder.cells[0]):  # type: ignore[call-overload]
        precision = 1 / s**2 + (after * spread) ** 2 / variance
        pull = after * spread / variance / precision
        cell.posterior = Linear([[-pull * after * gain, pull], [0, 0]], [0, -math.log(precision) / 2])
        variance, after = variance + (after * spread * s) ** 2, after * gain
    x = torch.linspace(-3, 3, 5, dtype=torch.float64).view(5, 1, 1, 1)
    exact = normal(after * x0, variance**0.5).log_prob(x).flatten()
    # the exact posterior makes every importance weight the evidence, and the bound tight
    torch.testing.assert_close(model.log_likelihood(x, samples=3), exact, rtol=0, atol=1e-12)
    bound = torch.stack([model(x).elbo.detach() for _ in range(4000)])
    error = bound.std(0) / len(bound) ** 0.5
    assert bool(((bound.mean(0) - exact).abs() < 5 * error).all())


def test_a_wrong_posterior_costs_what_it_diverges() -> None:
    """Normal priors and posteriors of one latent: the bound is below the evidence by KL(q, exact posterior)."""
    s, noise, own_mean, own_std = 0.8, 0.5, 0.3, 0.4
    model = linear_chain(1, "none", 0.0, 0.0, s, 0.0, noise)
    model.decoder.cells[0][0].posterior = Linear([[0, 0], [0, 0]], [own_mean, math.log(own_std)])  # type: ignore[index]
    x = torch.full((20_000, 1, 1, 1), 1.1, dtype=torch.float64)
    precision = 1 / s**2 + 1 / noise**2
    exact = normal(0.0, (s**2 + noise**2) ** 0.5).log_prob(x[0]).item()
    gap = kl_divergence(normal(own_mean, own_std), normal(1.1 / noise**2 / precision, precision**-0.5))
    elbo = model(x).elbo.detach()
    assert float(elbo.mean()) == pytest.approx(exact - float(gap), abs=5 * float(elbo.std()) / 20_000**0.5)


def test_divergence_has_a_limit_as_steps_shorten() -> None:
    """Girsanov: drifts that differ by u cost u^2 / (2 s^2) in unit time; the variances, which differ at h = 1, nothing."""
    chain = linear_chain(4, "per_resolution", -0.3, 0.0, 0.8, 0.0)
    chain.decoder.cells[0][0].posterior = Linear([[0, 0], [0, 0]], [0.6, math.log(0.3)])  # type: ignore[index]
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    limit = 0.6**2 / (2 * 0.8**2)
    excess = [chain.refined(k)(x).kl.sum().item() - limit for k in (16, 32, 64)]
    assert excess[0] / excess[1] == pytest.approx(2, abs=0.15) and excess[1] / excess[2] == pytest.approx(2, abs=0.1)


def test_divergence_against_monte_carlo() -> None:
    torch.manual_seed(0)
    model = small(share="per_resolution").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = eight_bit(1, 1, 8, 8).double().expand(4000, -1, -1, -1)
    features = model.features(x)
    with torch.no_grad():
        steps = [move.step for move in model.decoder.walk(len(x), features)]
    for step in steps:
        difference = step.kl + step.log_ratio  # of mean zero, given the state
        assert abs(float(difference.mean())) < 5 * float(difference.std()) / len(x) ** 0.5
    assert float(sum(step.kl.mean() for step in steps)) > 1


# ---- sharing -------------------------------------------------------------------------------------------


def test_equal_cells_stay_what_they_are_when_shared() -> None:
    torch.manual_seed(1)
    model = small().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        groups = [list(cells)[int(i < 2) :] for i, cells in enumerate(model.decoder.cells)]  # type: ignore[call-overload]
        for group in [*groups, *(list(blocks) for blocks in model.encoder.blocks)]:  # type: ignore[union-attr, call-overload]
            for other in group[1:]:
                other.load_state_dict(group[0].state_dict())
    shared = share_weights(model, "per_resolution")
    assert sum(p.numel() for p in shared.parameters()) < sum(p.numel() for p in model.parameters())
    assert shared.num_latents == model.num_latents
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    walks = [list(m.decoder.walk(5, generator=seed)) for m, seed in zip((model, shared), seeds)]
    for one, other in zip(*walks):
        torch.testing.assert_close(one.step.state, other.step.state)
    x = eight_bit(3, 1, 8, 8).double()
    for one, other in zip(model.features(x), shared.features(x)):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="share='none'"):
        share_weights(shared, 2)


def test_refined_keeps_the_weights_and_the_process() -> None:
    torch.manual_seed(0)
    model = small(share="per_resolution")
    finer = model.refined(3)
    assert model.num_latents == 2 + (1 + 3) + (1 + 2) and finer.num_latents == 6 + (1 + 9) + (1 + 6)
    assert all(p is q for p, q in zip(model.parameters(), finer.parameters()))
    x = eight_bit(2, 1, 8, 8)
    for factor, latents in ((2.0, 16), (0.5, 6), (1e-3, 5)):  # runs of 2, of 3 and of 2
        walked = model(x, refine=factor, generator=torch.Generator().manual_seed(0)).kl
        assert walked.shape == (2, latents)
        assert torch.equal(walked, model.refined(factor)(x, generator=torch.Generator().manual_seed(0)).kl)
    for factor in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="must be a positive number"):
            model.refined(factor)
    with pytest.raises(ValueError, match="save the model that it belongs to"):
        finer.save_pretrained("nowhere")


@pytest.mark.compile
def test_the_bound_is_one_graph() -> None:
    """A break in each cell would cost a compiled model its gain."""
    torch.manual_seed(0)
    model = small(share="per_resolution", start="gaussian", time_embedding=True, normalise_state=True)
    compiled, x = torch.compile(model, backend="eager", fullgraph=True), eight_bit(2, 1, 8, 8)
    for refine in (0.5, 1.0):
        bounds = []
        for run in (model, compiled):
            torch.manual_seed(1)
            bounds.append(run(x, refine=refine).elbo)
        torch.testing.assert_close(*bounds)


# ---- uses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["point", "gaussian"])
def test_latents_of_the_posterior_lead_to_its_state(start: str) -> None:
    torch.manual_seed(0)
    model = small(start=start)
    x = eight_bit(3, 1, 8, 8)
    *_, posterior = model.decoder.walk(3, model.features(x), generator=torch.Generator().manual_seed(1))
    latents = model.encode(x, generator=torch.Generator().manual_seed(1))
    assert len(latents) == model.num_latents
    *_, again = model.decoder.walk(3, latents=latents)
    assert torch.equal(posterior.step.state, again.step.state)


def test_sampling_reconstruction_interpolation() -> None:
    torch.manual_seed(0)
    model = small(start="gaussian")
    x = eight_bit(2, 1, 8, 8)

    def seed() -> torch.Generator:
        return torch.Generator().manual_seed(2)

    images = model.sample(3, generator=seed())
    assert images.shape == (3, 1, 8, 8) and torch.equal(images, model.sample(3, generator=seed()))
    assert torch.equal(model.sample(2, temperature=0.0)[0], model.sample(2, temperature=0.0)[1])
    latents = model.encode(x, generator=seed())
    assert torch.equal(model.reconstruct(x, generator=seed()), model.decode(latents, temperature=0.0))
    assert torch.equal(model.progressive(x, generator=seed())[-1], model.decode(latents, temperature=0.0))
    assert len(model.progressive(x)) == 3
    way = model.interpolate(x, x.flip(0), 3, generator=seed())
    assert torch.equal(way[0], model.decode(latents, temperature=0.0)) and len(way) == 3
    a, b = (model.decode(latents[:2], generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    assert a.shape == x.shape and not torch.equal(a, b)


def test_more_importance_samples_give_a_higher_bound() -> None:
    torch.manual_seed(0)
    model = small()
    x = eight_bit(64, 1, 8, 8)
    one, many = (model.log_likelihood(x, samples=k).mean() for k in (1, 32))
    assert many > one
    assert float(model.bits_per_dim(torch.tensor(-64 * math.log(256)))) == pytest.approx(8)


def test_trace_of_a_chain() -> None:
    torch.manual_seed(0)
    model = small(share="per_resolution")
    found = trace(model, eight_bit(16, 1, 8, 8))
    assert found.level == (3, 3, 1, 1, 1, 1, 0, 0, 0)
    assert sum(found.kl_of_levels().values()) == pytest.approx(sum(found.kl))
    assert min(found.kl) >= 0
    with torch.no_grad():
        for cell in (cell for cells in model.decoder.cells for cell in cells):
            cell.posterior.conv4.conv.weight.zero_()
            cell.posterior.conv4.conv.bias[:2] = torch.tensor([0.5, 0.05])  # of 4 means, one far from the prior's
    assert set(trace(model, eight_bit(16, 1, 8, 8)).active) == {0.25}
    prior = trace(model, n=32)
    assert set(prior.kl) == {0.0} and set(prior.active) == {0}
    assert len(prior.plot().axes) == 4
    with pytest.raises(ValueError, match="2 or more"):
        trace(model, n=1)


def test_trace_tells_drift_from_diffusion() -> None:
    chain = linear_chain(4, "per_resolution", -0.7, 0.0, 0.9, 1.5)
    found = trace(chain, n=50_000)
    assert found.diffusion == pytest.approx([0.9 / 2] * 4, rel=0.02)  # s sqrt(h)
    assert found.drift[0] == pytest.approx(0.7 * 1.5 / 4)
    assert found.spread[0] == pytest.approx(0.45, rel=0.02)


@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (Haar(1, "periodic"), (12,)),
        (Haar(2), (7, 9)),
        (Haar(3, "replicate"), (4, 5, 6)),
        (spaces.Wavelet("db2", spatial_dims=2, boundary="periodic"), (8, 8)),
        (spaces.Triangle(3), (64,)),
    ],
)
def test_spaces(space: spaces.Space, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = HVAE(
        2, size=shape, resolutions=[Resolution(0, 8, cells=2), Resolution(1, 8)], space=space, likelihood="gaussian"
    )
    x = torch.randn(2, 2, *shape)
    assert model(x).elbo.shape == (2,) and model.sample(1).shape == (1, 2, *shape)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"share": "per_resolution"},
        {"share": 2, "time_embedding": True},
        {"encoder": "pyramid", "start": "gaussian"},
        {"normalise_state": True, "likelihood": "bernoulli"},
    ],
)
def test_options(options: dict[str, object], tmp_path: object) -> None:
    torch.manual_seed(0)
    model = small(**options)
    x = eight_bit(4, 1, 8, 8)
    x = torch.where(x > 0, 1.0, -1.0) if options.get("likelihood") == "bernoulli" else x
    torch.manual_seed(3)
    loss = -model(x).elbo.mean()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    model.save_pretrained(tmp_path)  # type: ignore[arg-type]
    again = HVAE.from_pretrained(tmp_path)  # type: ignore[arg-type]
    torch.manual_seed(3)
    assert torch.equal(-again(x).elbo.mean(), loss)


def test_bound_under_autocast_is_that_of_float32() -> None:
    torch.manual_seed(0)
    model, x = small(start="gaussian"), eight_bit(4, 1, 8, 8)
    exact = model(x, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(x, generator=torch.Generator().manual_seed(0))
    assert found.kl.dtype == found.log_likelihood.dtype == torch.float32
    torch.testing.assert_close(found.elbo, exact.elbo, rtol=0.01, atol=0)


def test_conditioning_reaches_the_data() -> None:
    torch.manual_seed(0)
    model = small(emb_channels=6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "film" in name or "prior.conv4" in name:
                parameter.normal_(0, 0.3)
    a, b = (model.decode((), torch.full((2, 6), value), n=2, temperature=0.0) for value in (0.0, 1.0))
    assert not torch.equal(a, b)
    for use in (lambda: model(eight_bit(2, 1, 8, 8)), lambda: model.sample(2)):
        with pytest.raises(ValueError, match="emb_channels=6"):
            use()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": "all"}, "share must be"),
        ({"share": 0}, "share must be"),
        ({"resolutions": ()}, "fine to coarse"),
        ({"resolutions": (Resolution(1, 8), Resolution(0, 8))}, "fine to coarse"),
        ({"resolutions": (Resolution(1, 8),)}, "level 0"),
        ({"resolutions": (Resolution(0, 8), Resolution(4, 8))}, "no level 4: .* a single cell at level 3"),
        ({"likelihood": "logistics"}, "did you mean 'logistic'"),
        ({"encoder": "haar"}, "encoder='haar' is unknown"),
        ({"start": "normal"}, "start='normal' is unknown"),
        ({"latent_channels": 0}, "latent_channels must be"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_bad_inputs() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"built for size=\(8, 8\), got \(8, 9\)"):
        model(torch.zeros(1, 1, 8, 9))
    with pytest.raises(ValueError, match="in_channels=1, got 3"):
        model(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="latents"):
        model.decode(())
    with pytest.raises(ValueError, match="temperature must be"):
        model.sample(1, temperature=-1.0)
    x = eight_bit(2, 1, 8, 8)
    latents = model.encode(x)
    with pytest.raises(ValueError, match=r"a latent has the shape \(2, 2, 1, 1\), this cell's is \(2, 4, 1, 1\)"):
        model.decode([latents[0][:, :2]])
    with pytest.raises(ValueError, match="n=3, but the latents are those of 2"):
        model.decode(latents, n=3)
    with pytest.raises(ValueError, match="one shape"):
        model.interpolate(x, x[:1], 3)
    with pytest.raises(ValueError, match="8-bit values.*nan"):
        model.eval()(x * math.nan)
    with pytest.raises(ValueError, match="count must be"):
        model.interpolate(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), 1)
    with pytest.raises(ValueError, match="name='cifar' is unknown"):
        HVAE.vdvae("cifar")
    with pytest.raises(ValueError, match="cells must be"):
        Resolution(0, 8, cells=0)
    with pytest.raises(TypeError, match="did you mean 'share'"):
        HVAE(1, size=(8, 8), resolutions=SMALL, shar="none")  # type: ignore[call-arg]
