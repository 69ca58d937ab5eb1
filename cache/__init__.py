"""Answers already paid for."""
