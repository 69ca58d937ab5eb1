"""Models behind somebody else's API. The SDKs are imported when an adapter is opened, not before."""
