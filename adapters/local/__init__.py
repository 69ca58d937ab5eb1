"""Models that run on this machine: their weights lie in a folder here, and their input goes nowhere."""
