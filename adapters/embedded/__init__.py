"""Small models and simulators that need no download."""
