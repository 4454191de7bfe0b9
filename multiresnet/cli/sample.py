"""`multiresnet sample`: draw images from a trained diffusion model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multiresnet sample", description="Draw images from a trained diffusion model."
    )
    parser.add_argument("run", type=Path, help="run folder, or a checkpoint")
    parser.add_argument("-n", "--n", type=int, default=64, help="how many (default 64)")
    parser.add_argument(
        "--sampler", default="dpm-solver++", help="ddpm, ddim, dpm-solver++, sde-dpm-solver++, edm-euler, edm-heun"
    )
    parser.add_argument("--steps", type=int, help="default: 1000 for ddpm, 18 edm-heun, 40 edm-euler, 20 the others")
    parser.add_argument(
        "--label", type=int, help="class of all of them (default: every class in turn, if there are classes)"
    )
    parser.add_argument("--guidance", type=float, default=1.0, help="classifier-free guidance, 1 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples"), metavar="DIR", help="default: samples")
    return parser


def run(argv: Sequence[str]) -> None:
    """Load the run's network, sample, and write `00000.png`, ... and `grid.png`."""
    options = _parser().parse_args(argv)
    import torch

    from multiresnet.callbacks.predictions import write_images
    from multiresnet.tasks import DiffusionTask
    from multiresnet.tasks.diffusion.sample_pictures import save_picture

    from .runs import load_task

    task = load_task(DiffusionTask, options.run)
    classes = task.num_classes
    label = torch.arange(options.n) % classes if classes and options.label is None else options.label
    images = task.sample(
        options.n,
        sampler=options.sampler,
        steps=options.steps,
        label=label,
        guidance=options.guidance,
        seed=options.seed,
    )
    write_images(options.out, images)
    save_picture(options.out / "grid.png", images)
    print(f"{options.n} images and grid.png in {options.out}")
