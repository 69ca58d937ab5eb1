"""Exact nearest neighbours: numpy, faiss and torch find the same rows."""

from .index import BACKENDS, Index, search
from .points import Distance, reference

__all__ = ["BACKENDS", "Distance", "Index", "reference", "search"]
