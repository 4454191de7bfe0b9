"""Denoising and sampling: the task, noise levels, parametrisations, samplers, quality."""
