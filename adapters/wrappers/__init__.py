"""Behaviour added to any adapter, by wrapping."""
