"""The names that users may rely on, and what importing the package does to the process: nothing."""

import pkgutil
import subprocess
import sys

import multiresnet

PUBLIC_NAMES = {
    "Context",
    "Level",
    "MultiResNet",
    "PRESETS",
    "Preconditioned",
    "Constrained",
    "StaticFields",
    "ResidualUNet",
    "Augmented",
    "UNet",
    "tiled_predict",
    "count_macs",
    "count_parameters",
    "count_saved_bytes",
    "fold_tiled_skips",
    "haar_analysis",
    "haar_pyramid",
    "haar_synthesis",
    "match_budget",
}

HEAVY = ["lightning", "pytorch_lightning", "timm", "segmentation_models_pytorch", "torchvision", "matplotlib"]
HEAVY += ["diffusers", "monai", "rich", "h5py"]

IMPORT_CHECK = f"""
import sys, warnings
import torch

def settings():
    return (
        torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads(),
        torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic, torch.initial_seed(), torch.get_rng_state().tolist(),
        list(warnings.filters),
    )

before = settings()
conv2d = torch.nn.Conv2d
import multiresnet
multiresnet.spaces, multiresnet.testing  # come with the package
assert settings() == before, "a global setting changed"
assert torch.nn.Conv2d is conv2d, "torch was patched"
loaded = sorted(set({HEAVY!r}) & set(sys.modules))
assert not loaded, f"imported on the way: {{loaded}}"
"""


def public_names() -> set[str]:
    """What the package offers beside its modules."""
    modules = {module.name for module in pkgutil.iter_modules(multiresnet.__path__)}
    return {name for name in vars(multiresnet) if not name.startswith("_")} - modules


def test_public_names_are_exactly_these() -> None:
    assert public_names() == PUBLIC_NAMES


def test_every_public_name_is_documented() -> None:
    for name in public_names():
        assert getattr(multiresnet, name).__doc__, f"multiresnet.{name} has no docstring"


def test_import_is_light_silent_and_changes_nothing() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_CHECK], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr == ""
