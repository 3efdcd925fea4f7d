"""Which layers go, and taking them out, in memory or on disk."""
