"""Trained baselines: DP-SGD on diffusion models, a published method a file."""
