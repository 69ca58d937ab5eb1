"""Private Evolution: embed, vote, select, vary."""
