"""privolve: differentially private synthetic images and text, by Private Evolution or by training."""

__version__ = "0.1.0"
