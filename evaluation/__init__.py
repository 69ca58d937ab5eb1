"""How good, and how safely known."""
