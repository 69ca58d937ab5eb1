"""Classifiers that are trained on one set of images and judged on another; the small ones in seconds on one core."""
