"""How a task is computed: compiled or not, in which memory format and precision, sharded or not."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils.hooks import RemovableHandle

from multiresnet.checks import check_choice
from multiresnet.unet import DecoderLevel, StrictLevel

from .base import Task

__all__ = ["Compute", "ShardedLevels", "default_precision", "shard_levels"]

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes
MatmulPrecision = Literal["highest", "high", "medium"]


def default_precision() -> Literal["bf16-mixed", "32-true"]:
    """What to give to `Trainer(precision=...)`: "bf16-mixed" where the hardware multiplies in bfloat16, else "32-true".

    That is a GPU with bfloat16 units, or, when there is no GPU, a CPU with AVX512-BF16 or AMX. fp16 is never chosen.

    Examples:
        >>> default_precision() in ("bf16-mixed", "32-true")
        True
    """
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        fast = any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16-mixed" if fast else "32-true"


class Compute(Callback):
    """Compiles the network of a task, lays it out channels last, and sets the precision of float32 products.

    It acts on fit, validate, test and predict alike. The network stays the same module: checkpoints do not change.

    Args:
        compile: `torch.compile` the network in place. Worth its start-up time on GPUs; on CPUs it made training slower.
        channels_last: weights and inputs of a 2-D or 3-D network in the memory format that convolutions prefer.
        matmul_precision: see `torch.set_float32_matmul_precision`; "high" lets GPUs use TF32. It is put back at the end.

    Raises:
        ValueError: unknown `matmul_precision`; `channels_last` for a network without 2-D or 3-D convolutions.

    Examples:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[Compute(channels_last=True)], accelerator="cpu", logger=False)
    """

    def __init__(
        self, *, compile: bool = False, channels_last: bool = False, matmul_precision: MatmulPrecision | None = None
    ) -> None:
        if matmul_precision is not None:
            check_choice("matmul_precision", matmul_precision, ("highest", "high", "medium"))
        self.compile, self.channels_last, self.matmul_precision = compile, channels_last, matmul_precision
        self._precision_before: str | None = None
        self._hook: RemovableHandle | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Apply what can be applied; early, because DDP copies the memory format of the weights into its buckets."""
        if self.matmul_precision is not None:
            self._precision_before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision(self.matmul_precision)
        if isinstance(pl_module, Task):
            pl_module.configure_model()
        self._apply(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply to a network that was built meanwhile."""
        self._apply(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply to a network that came from a checkpoint."""
        self._apply(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply to a network that came from a checkpoint."""
        self._apply(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply to a network that came from a checkpoint."""
        self._apply(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put back what is not the network's own."""
        if self._precision_before is not None:
            torch.set_float32_matmul_precision(self._precision_before)
            self._precision_before = None
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _apply(self, pl_module: LightningModule) -> None:
        """Idempotent."""
        model = getattr(pl_module, "model", None)
        if not isinstance(model, nn.Module):
            return
        if self.channels_last:
            _lay_out(model)
            if self._hook is None:
                self._hook = model.register_forward_pre_hook(_lay_out_inputs)
        if self.compile and model._compiled_call_impl is None:
            model.compile()


def _lay_out(model: nn.Module) -> None:
    weights = [p for p in model.parameters() if p.ndim in FORMATS]
    if not weights:
        raise ValueError(f"channels_last is for 2-D and 3-D networks; {type(model).__name__} has no such convolution")
    for p in weights:
        p.data = p.data.contiguous(memory_format=FORMATS[p.ndim])


def _lay_out_inputs(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        x.contiguous(memory_format=FORMATS[x.ndim]) if isinstance(x, Tensor) and x.ndim in FORMATS else x
        for x in inputs
    )


def shard_levels(model: nn.Module, mesh: DeviceMesh) -> None:
    """FSDP: shard the weights over the processes of `mesh`, each level of the decoder a unit, the rest another one.

    A unit's weights are gathered when it runs and dropped afterwards, so besides its shard a process holds those of one
    level at a time.
    """
    from torch.distributed.fsdp import fully_shard

    for module in model.modules():
        if isinstance(module, (DecoderLevel, StrictLevel)):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


class ShardedLevels(Callback):
    """`shard_levels` for the network of a task, under `Trainer(strategy=ModelParallelStrategy(...))`.

    Use `ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)`:
    checkpoints are then single files that any other strategy can load.

    Raises:
        ValueError: another strategy.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Build the network and shard it, before there is an optimiser."""
        mesh = pl_module.device_mesh
        if mesh is None:
            raise ValueError(
                f"ShardedLevels needs Trainer(strategy=ModelParallelStrategy(...)), got {type(trainer.strategy).__name__}"
            )
        if isinstance(pl_module, Task):
            pl_module.configure_model()
        shard_levels(cast(nn.Module, pl_module.model), mesh["data_parallel"])
