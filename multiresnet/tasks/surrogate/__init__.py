"""The next frames of a trajectory: the task, its stepping, errors and spectra."""
