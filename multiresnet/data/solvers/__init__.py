"""Solvers that make PDE data, and their resumable writing."""
