"""Wording, as data."""
