"""`multiresnet sample`: draw images from a trained diffusion model or hierarchical VAE."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["run"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multiresnet sample", description="Draw images from a trained diffusion model or hierarchical VAE."
    )
    parser.add_argument("run", type=Path, help="run folder, or a checkpoint")
    parser.add_argument("-n", "--n", type=int, default=64, help="how many (default 64)")
    parser.add_argument(
        "--label", type=int, help="class of all of them (default: every class in turn, if there are classes)"
    )
    parser.add_argument("--seed", type=int, default=0)
    diffusion = parser.add_argument_group("diffusion models")
    diffusion.add_argument(
        "--sampler",
        help="ddpm, ddim, dpm-solver++ (default), sde-dpm-solver++, edm-euler, edm-heun",
    )
    diffusion.add_argument("--steps", type=int, help="default: 1000 for ddpm, 18 edm-heun, 40 edm-euler, 20 the others")
    diffusion.add_argument("--guidance", type=float, help="classifier-free guidance, 1 (default) for none")
    vae = parser.add_argument_group("hierarchical VAEs")
    vae.add_argument("--temperature", type=float, help="factor of all standard deviations, default 1")
    vae.add_argument(
        "--refine", type=float, help="factor of the number of steps of cells that share weights, default 1"
    )
    parser.add_argument("--out", type=Path, default=Path("samples"), metavar="DIR", help="default: samples")
    return parser


def run(argv: Sequence[str]) -> None:
    """Load the run's network, sample, and write `00000.png`, ... and `grid.png`."""
    options = _parser().parse_args(argv)
    import torch

    from multiresnet.callbacks.predictions import write_images
    from multiresnet.tasks import DiffusionTask, HVAETask
    from multiresnet.tasks.diffusion.sample_pictures import save_picture

    from .runs import load_task, task_name

    kinds: dict[str, tuple[Any, tuple[str, ...]]] = {
        "DiffusionTask": (DiffusionTask, ("sampler", "steps", "guidance")),
        "HVAETask": (HVAETask, ("temperature", "refine")),
    }
    name = task_name(options.run)
    if name not in kinds:
        raise ValueError(f"{str(options.run)!r} holds a {name}; images are drawn from a DiffusionTask or an HVAETask")
    kind, known = kinds[name]
    task = load_task(kind, options.run)
    special = [option for _, own in kinds.values() for option in own]
    given = {option: value for option in special if (value := getattr(options, option)) is not None}
    if strangers := given.keys() - set(known):
        raise ValueError(f"{name} has no --{' --'.join(sorted(strangers))}; its options: --{' --'.join(known)}")
    classes = task.num_classes
    label = torch.arange(options.n) % classes if classes and options.label is None else options.label
    images = task.sample(options.n, label=label, seed=options.seed, **given)
    write_images(options.out, images)
    save_picture(options.out / "grid.png", images)
    print(f"{options.n} images and grid.png in {options.out}")
