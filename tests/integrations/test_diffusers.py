"""The models in the hands of diffusers: its schedulers, pipelines, checkpoints, averages and casts."""

import importlib
import inspect
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ConsistencyModelPipeline,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.training_utils import EMAModel
from torch import nn

import multiresnet.integrations.diffusers as adapter
from multiresnet import Context, MultiResNet, MultiResNet2DConditionModel, MultiResNet2DModel
from multiresnet.attention import CrossAttention, SelfAttention
from multiresnet.embeddings import Conditioning
from multiresnet.spaces import Haar
from multiresnet.tasks import DiffusionTask
from multiresnet.testing import assert_every_parameter_has_gradient, randomise
from multiresnet.unet import DecoderLevel

SMALL = {"sample_size": 13, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
TOKENS = 6  # numbers in a token
HOSTS = {MultiResNet2DModel: UNet2DModel, MultiResNet2DConditionModel: UNet2DConditionModel}


class Called(nn.Module):
    """A model with all its conditioning but the image held fixed."""

    def __init__(self, model: nn.Module, **inputs) -> None:
        super().__init__()
        self.model, self.inputs = model, {"timestep": 10, **inputs}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x, **self.inputs).sample


def make(cls=MultiResNet2DModel, **options):
    """A small model of 2 channels whose zero-initialised branches act."""
    extra = {"cross_attention_dim": TOKENS} if cls is MultiResNet2DConditionModel else {}
    torch.manual_seed(1)
    return randomise(cls(**{"in_channels": 2, "out_channels": 2, **SMALL, **extra, **options})).eval()


def inputs_of(model, n: int = 2) -> dict[str, torch.Tensor]:
    tokens = isinstance(model, MultiResNet2DConditionModel)
    return {"encoder_hidden_states": torch.randn(n, 5, TOKENS)} if tokens else {}


both = pytest.mark.parametrize("cls", HOSTS, ids=lambda cls: cls.__name__)


# ---- called like the host's ---------------------------------------------------------------------------


@both
def test_call_is_that_of_the_host(cls):
    ours, host = (list(inspect.signature(c.forward).parameters) for c in (cls, HOSTS[cls]))
    assert ours == host
    model = make(cls)
    x, more = torch.randn(2, 2, 13, 13), inputs_of(model)
    out = model(x, 3, **more)
    assert type(out) is (UNet2DConditionOutput if more else UNet2DOutput)
    assert isinstance(whole := model(x, 3, **more, return_dict=False), tuple) and len(whole) == 1
    assert torch.equal(whole[0], out.sample)


def test_equals_the_core_called_by_hand():
    model = make(
        num_class_embeds=5, patch_levels=0, sweeps=2, skip="packet", boundary="periodic", time_embedding_dim=24
    )
    net = MultiResNet(
        2,
        2,
        space=Haar(2, "periodic"),
        channels=(16, 32),
        num_blocks=1,
        patch_levels=0,
        skip="packet",
        sweeps=2,
        norm=lambda channels: nn.GroupNorm(8, channels),
        activation="SiLU",
        block=("residual", "attention"),
        emb_channels=24,
    )
    conditioning = Conditioning(24, noise=True, classes=4)
    net.load_state_dict(model.net.state_dict())
    conditioning.load_state_dict(model.conditioning.state_dict())
    x, t, label = torch.randn(3, 2, 9, 14), torch.tensor([0, 500, 999]), torch.tensor([0, 3, 4])
    expected = net(x, conditioning(noise=t, label=label))
    torch.testing.assert_close(model(x, t, label).sample, expected)


def test_tokens_equal_the_core_called_by_hand():
    model = make(MultiResNet2DConditionModel)
    x, tokens, mask = (
        torch.randn(2, 2, 8, 8),
        torch.randn(2, 5, TOKENS),
        torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 0, 0]]),
    )
    context = Context(model.conditioning(noise=torch.tensor([7, 7])), model.token_projection(tokens), mask.bool())
    torch.testing.assert_close(model(x, 7, tokens, encoder_attention_mask=mask).sample, model.net(x, context))


def test_masked_tokens_do_not_count():
    model = make(MultiResNet2DConditionModel)
    x, tokens = torch.randn(1, 2, 8, 8), torch.randn(1, 5, TOKENS)
    alone = model(x, 7, tokens[:, :3]).sample
    assert not torch.allclose(model(x, 7, tokens).sample, alone, atol=1e-4)
    masked = model(x, 7, tokens, encoder_attention_mask=torch.tensor([[True, True, True, False, False]])).sample
    torch.testing.assert_close(masked, alone)
    nothing = model(x, 7, tokens, encoder_attention_mask=torch.zeros(1, 5)).sample
    torch.testing.assert_close(nothing, model(x, 7, tokens).sample)  # as in the host, where the mask is a large bias


@both
def test_timesteps(cls):
    model = make(cls)
    x, more = torch.randn(2, 2, 13, 13), inputs_of(model)
    expected = model(x, 10, **more).sample
    one = (10.0, torch.tensor(10), torch.tensor([10]), torch.tensor([10, 10]), torch.tensor([[10], [10]]))
    for t in (*one, torch.tensor(10, dtype=torch.int32), torch.tensor([10.0], dtype=torch.float64)):
        assert torch.equal(model(x, t, **more).sample, expected)
    each = model(x, torch.tensor([10, 11]), **more).sample
    torch.testing.assert_close(each[0], expected[0])
    assert not torch.allclose(each[1], expected[1], atol=1e-6)
    with pytest.raises(ValueError, match=r"timestep must be one number, .* each of the 2 samples; got shape \(3,\)"):
        model(x, torch.tensor([1, 2, 3]), **more)


@pytest.mark.parametrize("rows, label", [(5, None), (None, [0, 1])])
def test_class_labels_are_refused_where_the_host_refuses_them(rows, label):
    x, label = torch.randn(2, 2, 16, 16), None if label is None else torch.tensor(label)
    types = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    host = UNet2DModel(in_channels=2, out_channels=2, **SMALL, **types, num_class_embeds=rows)
    with pytest.raises(ValueError):
        host(x, 3, label)
    with pytest.raises(ValueError, match=f"class_labels are {'unexpected' if rows is None else 'missing'}: .*={rows}"):
        make(num_class_embeds=rows)(x, 3, label)


def test_class_labels():
    model = make(num_class_embeds=5)
    assert model.conditioning.table.weight.shape[0] == 5
    x = torch.randn(2, 2, 13, 13)
    torch.testing.assert_close(model(x, 3, torch.tensor([4])).sample, model(x, 3, torch.tensor([4, 4])).sample)
    with pytest.raises(ValueError, match=r"class labels must be 0 \.\.\. 3 \(4 for none\), got 0 \.\.\. 5"):
        model(x, 3, torch.tensor([0, 5]))
    with pytest.raises(TypeError, match="class_labels must be integers, got torch.float32"):
        model(x, 3, torch.tensor([0.0, 1.0]))


@pytest.mark.filterwarnings("ignore:spatial size .* is smaller than:UserWarning")
@both
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 7), (33, 2)])
def test_any_size(cls, size):
    model = make(cls)
    assert model(torch.randn(2, 2, *size), 3, **inputs_of(model)).sample.shape == (2, 2, *size)


@both
def test_every_parameter_has_a_gradient(cls):
    coarse = "CrossAttnDownBlock2D" if cls is MultiResNet2DConditionModel else "AttnDownBlock2D"
    model = make(cls, num_class_embeds=5, sweeps=2, down_block_types=["DownBlock2D", coarse])
    called = Called(model, class_labels=torch.tensor([0, 3]), **inputs_of(model))
    assert_every_parameter_has_gradient(called, torch.randn(2, 2, 20, 20))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tells_neighbouring_steps_apart(dtype):
    model = make(MultiResNet2DConditionModel).to(dtype)
    x, tokens = torch.randn(1, 2, 8, 8).to(dtype), torch.randn(1, 3, TOKENS).to(dtype)
    assert model.dtype == model(x, 998, tokens).sample.dtype == dtype
    seen: list[torch.Tensor] = []
    model.conditioning.noise.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for t in (998, 999):
        model(x, t, tokens)
    assert (seen[0] - seen[1]).abs().max() > 0.5  # in bfloat16 both numbers are 1000


# ---- built from the host's config ---------------------------------------------------------------------


@both
def test_from_a_config_of_defaults(cls):  # diffusers leaves out what was not given
    with torch.device("meta"):
        host = HOSTS[cls]()
        model = cls.from_config(host.config)
    names = host.config.down_block_types[::-1]  # coarsest first
    for name, level in zip(names, model.net.sweeps[0].levels, strict=True):
        kinds = {type(block) for block in level.blocks}
        assert ((SelfAttention in kinds), (CrossAttention in kinds)) == ("Attn" in name, "CrossAttn" in name)
    for name in set(model.config) & set(inspect.signature(HOSTS[cls].__init__).parameters) - {"down_block_types"}:
        assert model.config[name] == host.config[name]


def test_from_the_config_of_a_unet():
    names = ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D")
    host = UNet2DModel(
        sample_size=24,
        in_channels=1,
        out_channels=1,
        down_block_types=names,
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        act_fn="mish",
        norm_num_groups=16,
        num_class_embeds=11,
    )
    model = MultiResNet2DModel.from_config(host.config)
    shared = set(host.config) & set(inspect.signature(MultiResNet2DModel.__init__).parameters)
    assert len(shared) == 11 and all(model.config[name] == host.config[name] for name in shared)
    coarse_first = model.net.sweeps[0].levels
    attends = [any(isinstance(m, SelfAttention) for m in level.modules()) for level in coarse_first]
    assert attends == [True, False, False]
    assert any(isinstance(m, nn.Mish) for m in model.modules())
    assert {m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)} == {16}
    assert host(torch.randn(2, 1, 24, 24), 5, torch.tensor([0, 10])).sample.shape == (2, 1, 24, 24)
    assert model(torch.randn(2, 1, 24, 24), 5, torch.tensor([0, 10])).sample.shape == (2, 1, 24, 24)


def test_from_the_config_of_a_conditional_unet():
    host = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=TOKENS,
    )
    model = MultiResNet2DConditionModel.from_config(host.config)
    crosses = [any(isinstance(m, CrossAttention) for m in level.modules()) for level in model.net.sweeps[0].levels]
    assert crosses == [False, True]
    x, tokens = torch.randn(2, 4, 16, 16), torch.randn(2, 5, TOKENS)
    assert model(x, 3, tokens).sample.shape == host(x, 3, tokens).sample.shape


def test_config_is_plain_json():
    model = make(boundary=(("zeros", "replicate"), "periodic"), layers_per_block=(1, 2))
    again = MultiResNet2DModel.from_config(json.loads(model.to_json_string()))
    assert again.net.space == model.net.space
    again.load_state_dict(model.state_dict())
    assert type(pickle.loads(pickle.dumps(again))) is MultiResNet2DModel


@pytest.mark.parametrize(
    "cls, options, message",
    [
        (MultiResNet2DModel, {"down_block_types": ["DownBlock2D"]}, "has 1 entries for the 2 levels"),
        (MultiResNet2DModel, {"down_block_types": ["CrossAttnDownBlock2D"] * 2}, "take MultiResNet2DConditionModel"),
        (MultiResNet2DConditionModel, {"down_block_types": ["DownBlock2D"] * 2}, "take MultiResNet2DModel"),
        (MultiResNet2DConditionModel, {"cross_attention_dim": (8, 8)}, "cross_attention_dim must be an integer >= 1"),
        (MultiResNet2DConditionModel, {"time_cond_proj_dim": 256}, "does not know time_cond_proj_dim"),
        (MultiResNet2DModel, {"num_class_embeds": 1}, "num_class_embeds must be at least 2"),
        (MultiResNet2DModel, {"boundary": "circular"}, "takes one of periodic, reflect"),
        (MultiResNet2DModel, {"act_fn": "sillu"}, "sillu not found"),
    ],
)
def test_bad_configs(cls, options, message):
    with pytest.raises(ValueError, match=message):
        make(cls, **options)


def test_an_unknown_name_is_a_type_error_with_the_nearest_one():
    with pytest.raises(TypeError, match="'block_channels' .did you mean 'block_out_channels'"):
        make(block_channels=(16,))


@pytest.mark.parametrize("name", ["timestep_cond", "cross_attention_kwargs", "added_cond_kwargs", "attention_mask"])
def test_conditioning_of_other_networks_is_refused(name):
    model = make(MultiResNet2DConditionModel)
    x, tokens = torch.randn(1, 2, 8, 8), torch.randn(1, 3, TOKENS)
    model(x, 1, tokens, **{name: None})
    with pytest.raises(ValueError, match=f"does not know {name}: leave out, or pass None"):
        model(x, 1, tokens, **{name: {}})
    with pytest.raises(
        ValueError,
        match=r"expected encoder_hidden_states of shape .*cross_attention_dim\) = \(1, >= 1, 6\), got \(1, 3, 5\)",
    ):
        model(x, 1, torch.randn(1, 3, 5))
    for tokens, got in ((None, "got NoneType"), (torch.randn(2, 3, TOKENS), r"got \(2, 3, 6\)")):
        with pytest.raises(ValueError, match=got):
            model(x, 1, tokens)


# ---- memory, precision, attention ---------------------------------------------------------------------


@both
def test_gradient_checkpointing_recomputes_and_changes_nothing(cls):
    model = make(cls)
    calls: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, DecoderLevel):
            module.register_forward_pre_hook(lambda module, *_: calls.append(module))
    called, x = Called(model, **inputs_of(model)), torch.randn(2, 2, 13, 13)

    def gradients() -> list[torch.Tensor]:
        calls.clear()
        model.zero_grad()
        called(x).square().sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    expected = gradients()
    assert len(calls) == 2 and not model.is_gradient_checkpointing
    model.enable_gradient_checkpointing()
    found = gradients()
    assert len(calls) == 4 and model.is_gradient_checkpointing
    torch.testing.assert_close(found, expected)
    model.disable_gradient_checkpointing()
    gradients()
    assert len(calls) == 2 and not model.is_gradient_checkpointing
    with pytest.raises(ValueError, match="leave out gradient_checkpointing_func"):
        model.enable_gradient_checkpointing(torch.utils.checkpoint.checkpoint)


@both
@pytest.mark.parametrize("storage", [torch.float8_e4m3fn, torch.bfloat16])
def test_layerwise_casting(cls, storage):
    model = make(cls, num_class_embeds=3)
    called, x = Called(model, class_labels=torch.tensor([0, 2]), **inputs_of(model)), torch.randn(2, 2, 13, 13)
    expected, before = called(x), model.get_memory_footprint()
    model.enable_layerwise_casting(storage_dtype=storage, compute_dtype=torch.float32)
    assert model.dtype == torch.float32 and model.get_memory_footprint() < 0.8 * before
    error = (called(x) - expected).abs().max() / expected.abs().max()
    assert 0 < error < (0.2 if storage == torch.float8_e4m3fn else 0.02)


@both
def test_switches_of_attention_are_refused(cls):
    model = make(cls)
    pipe = DDPMPipeline(model, DDPMScheduler())
    for switch in (
        model.enable_xformers_memory_efficient_attention,
        pipe.enable_xformers_memory_efficient_attention,
        pipe.enable_attention_slicing,
        lambda: model.set_attention_backend("flash"),
    ):
        with pytest.raises(ValueError, match="there is nothing to switch"):
            switch()
    model.set_attention_backend("native")
    pipe.disable_xformers_memory_efficient_attention()
    pipe.disable_attention_slicing()
    assert not hasattr(model, "set_attn_processor") and not hasattr(model, "enable_freeu")


@pytest.mark.compile
@both
def test_compiles_whole(cls):
    model = make(cls, num_class_embeds=5)
    called, x = Called(model, class_labels=torch.tensor([0, 4]), **inputs_of(model)), torch.randn(2, 2, 13, 13)
    whole = torch.compile(called, fullgraph=True, backend="eager")
    torch.testing.assert_close(whole(x), called(x))


@pytest.mark.compile
def test_exports():
    model = make(MultiResNet2DConditionModel)
    arguments = (torch.randn(2, 2, 13, 13), torch.tensor(5), torch.randn(2, 5, TOKENS))
    program = torch.export.export(model, arguments)
    torch.testing.assert_close(program.module()(*arguments).sample, model(*arguments).sample)


# ---- saved and loaded by the host ---------------------------------------------------------------------


@both
@pytest.mark.parametrize("shard", ["10GB", "60KB"])
def test_saved_model_comes_back(cls, shard, tmp_path):
    model = make(cls)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "60KB")
    again = cls.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    x, more = torch.randn(2, 2, 13, 13), inputs_of(model)
    assert torch.equal(again(x, 3, **more).sample, model(x, 3, **more).sample)
    assert cls.from_pretrained(tmp_path, low_cpu_mem_usage=False, dtype=torch.bfloat16).dtype == torch.bfloat16


@both
def test_loads_without_building_twice(cls, tmp_path):
    pytest.importorskip("accelerate")
    model = make(cls)
    model.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path, low_cpu_mem_usage=True)
    x, more = torch.randn(2, 2, 13, 13), inputs_of(model)
    assert torch.equal(again(x, 3, **more).sample, model(x, 3, **more).sample)


@both
def test_filled_from_the_meta_device(cls):
    model = make(cls)
    with torch.device("meta"):
        empty = cls.from_config(model.config)
    full = empty.to_empty(device="cpu").eval()
    full.load_state_dict(model.state_dict())
    x, more = torch.randn(2, 2, 13, 13), inputs_of(model)
    assert torch.equal(full(x, 3, **more).sample, model(x, 3, **more).sample)


def test_pipeline_comes_back_in_a_process_that_only_imports_the_package(tmp_path):
    pipe = DDIMPipeline(make(in_channels=3, out_channels=3), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "pipe")
    assert json.loads((tmp_path / "pipe/model_index.json").read_text())["unet"] == ["multiresnet", "MultiResNet2DModel"]
    code = f"""
import multiresnet, sys
assert "diffusers" not in sys.modules
import numpy, torch
from diffusers import DiffusionPipeline
torch.set_num_threads(1)
pipe = DiffusionPipeline.from_pretrained({str(tmp_path / "pipe")!r}, low_cpu_mem_usage=False)
assert type(pipe.unet) is multiresnet.MultiResNet2DModel
images = pipe(num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np").images
numpy.save({str(tmp_path / "images.npy")!r}, images)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    images = pipe(num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert np.ptp(images) > 0.1
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), images, atol=1e-5)


@pytest.mark.filterwarnings("ignore:It is deprecated to pass a pretrained model name or path:FutureWarning")
def test_moving_average(tmp_path):
    model = make()
    ema = EMAModel(model.parameters(), decay=0.5, model_cls=MultiResNet2DModel, model_config=model.config)
    ema.step(model.parameters())  # the first one copies
    start = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    ema.step(model.parameters())
    share = 1 - ema.cur_decay_value
    assert 0 < share < 1
    ema.save_pretrained(tmp_path)
    EMAModel.from_pretrained(tmp_path, MultiResNet2DModel).copy_to(model.parameters())
    for p, old in zip(model.parameters(), start):
        torch.testing.assert_close(p.detach(), old + share)


# ---- pipelines and schedulers -------------------------------------------------------------------------


@pytest.mark.parametrize("kind, scheduler", [(DDPMPipeline, DDPMScheduler), (DDIMPipeline, DDIMScheduler)])
def test_pipeline_is_the_loop_over_the_model(kind, scheduler):
    model = make()
    pipe = kind(model, scheduler())
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        batch_size=2, num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np"
    ).images
    assert images.shape == (2, 13, 13, 2)

    steps, generator = scheduler.from_config(pipe.scheduler.config), torch.Generator().manual_seed(0)
    steps.set_timesteps(3)
    x = torch.randn(2, 2, 13, 13, generator=generator)
    with torch.no_grad():
        for t in steps.timesteps:
            x = steps.step(model(x, t).sample, t, x, generator=generator).prev_sample
    np.testing.assert_allclose(images, (x / 2 + 0.5).clamp(0, 1).movedim(1, -1), atol=1e-5)


def test_consistency_pipeline_with_classes():
    from diffusers import CMStochasticIterativeScheduler

    pipe = ConsistencyModelPipeline(make(num_class_embeds=4), CMStochasticIterativeScheduler(num_train_timesteps=40))
    pipe.set_progress_bar_config(disable=True)
    draw = [pipe(class_labels=c, generator=torch.Generator().manual_seed(0), output_type="np").images for c in (0, 1)]
    assert draw[0].shape == (1, 13, 13, 2) and np.abs(draw[0] - draw[1]).max() > 1e-4


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_guidance_with_dpm_solver():
    model, scheduler = make(MultiResNet2DConditionModel), DPMSolverMultistepScheduler(algorithm_type="dpmsolver++")
    prompt, no_prompt = torch.randn(1, 5, TOKENS), torch.randn(1, 5, TOKENS)

    def draw(guidance: float) -> torch.Tensor:
        scheduler.set_timesteps(4)
        x = torch.randn(1, 2, 13, 13, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
        with torch.no_grad():
            for t in scheduler.timesteps:
                twice = scheduler.scale_model_input(torch.cat([x, x]), t)
                without, wanted = model(twice, t, torch.cat([no_prompt, prompt]), return_dict=False)[0].chunk(2)
                x = scheduler.step(without + guidance * (wanted - without), t, x).prev_sample
        return x

    plain, guided = draw(1.0), draw(7.5)
    assert guided.isfinite().all() and not torch.allclose(plain, guided, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_stable_diffusion_pipeline(tmp_path):
    pytest.importorskip("transformers")
    from diffusers import StableDiffusionPipeline

    blocks = {"block_out_channels": (16, 32), "norm_num_groups": 8, "latent_channels": 4}
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **blocks
    )
    unet = make(MultiResNet2DConditionModel, in_channels=4, out_channels=4)
    nothing = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder"))
    pipe = StableDiffusionPipeline(vae, unet=unet, scheduler=DDIMScheduler(), **nothing, requires_safety_checker=False)
    pipe.save_pretrained(tmp_path)
    prompts = {"prompt_embeds": torch.randn(1, 5, TOKENS), "negative_prompt_embeds": torch.randn(1, 5, TOKENS)}
    draws = []
    for drawing in (pipe, DiffusionPipeline.from_pretrained(tmp_path, **nothing, requires_safety_checker=False)):
        drawing.set_progress_bar_config(disable=True)
        seed = torch.Generator().manual_seed(0)
        draws.append(drawing(**prompts, height=40, width=24, num_inference_steps=2, generator=seed, output_type="np"))
    assert draws[0].images.shape == (1, 40, 24, 3)
    np.testing.assert_allclose(draws[0].images, draws[1].images, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_diffusion_task_takes_it():
    task = DiffusionTask(make(num_class_embeds=4), classes=3)  # and "no class"
    assert task.sample(3, size=(2, 13, 13), steps=2, label=[0, 1, 2], guidance=2).shape == (3, 2, 13, 13)


# ---- the host itself ----------------------------------------------------------------------------------


def test_host_of_another_version(monkeypatch):
    monkeypatch.setattr("multiresnet.integrations.host.version", lambda name: "0.41.0")
    with pytest.warns(UserWarning, match="diffusers 0.41.0 lies outside the versions"):
        importlib.reload(adapter)
