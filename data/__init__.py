"""Private sets: slots, records, sources."""
