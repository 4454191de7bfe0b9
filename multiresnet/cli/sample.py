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
    parser.add_argument("--sampler", default="dpm-solver++", help="ddpm, ddim, dpm-solver++, edm-euler, edm-heun")
    parser.add_argument("--steps", type=int, default=20, help="network evaluations or so (default 20)")
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

    from .runs import load_task

    task = load_task(DiffusionTask, options.run)
    classes = int(task.facts["classes"])
    label = torch.arange(options.n) % classes if classes else None
    if options.label is not None:
        label = torch.full((options.n,), options.label)
    images = task.sample(
        options.n,
        sampler=options.sampler,
        steps=options.steps,
        label=label,
        guidance=options.guidance,
        generator=torch.Generator().manual_seed(options.seed),
    )
    write_images(options.out, images)
    print(f"{options.n} images and grid.png in {options.out}")
