"""Paired differences, transitions, straight lines."""
