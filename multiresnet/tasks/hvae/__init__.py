"""Hierarchical VAEs: the task, the network's description, pictures."""
