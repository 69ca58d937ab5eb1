"""The diffusion core that the methods share: networks, denoisers, losses, samplers; nothing here is private."""
