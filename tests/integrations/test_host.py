"""What a user is told whose environment lacks the host of an adapter."""

import subprocess
import sys

import pytest

WITHOUT = """
import importlib.metadata as metadata
import sys
distribution, module, statement = sys.argv[1:]
version = metadata.version
def missing(name):
    if name == distribution:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = missing
import multiresnet
assert module not in sys.modules  # without the adapter nobody misses the host
try:
    exec(statement)
except ImportError as error:
    assert module not in sys.modules
    sys.exit(str(error))
"""


@pytest.mark.parametrize(
    ("distribution", "module", "statement", "wanted"),
    [
        (
            "segmentation-models-pytorch",
            "segmentation_models_pytorch",
            "import multiresnet.integrations.smp",
            "segmentation-models-pytorch",
        ),
        ("timm", "timm", "import multiresnet.integrations.timm", "timm"),
        ("diffusers", "diffusers", "multiresnet.MultiResNet2DModel", "multiresnet[diffusion]"),
        ("monai", "monai", "import multiresnet.integrations.monai", "multiresnet[medical]"),
        (
            "neuraloperator",
            "neuralop",
            "from multiresnet.integrations.pde import neuralop_class; neuralop_class()",
            "multiresnet[neuralop]",
        ),
    ],
)
def test_a_missing_host_says_what_to_install(distribution, module, statement, wanted):
    arguments = [sys.executable, "-c", WITHOUT, distribution, module, statement]
    run = subprocess.run(arguments, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.strip() == f"{distribution} is not installed; pip install '{wanted}'"
