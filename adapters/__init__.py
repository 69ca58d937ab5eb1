"""The gateway: every model behind one verb."""
