"""Classes of pixels and voxels: the task, its labels, losses and metrics."""
