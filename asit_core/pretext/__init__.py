"""Pretext tasks, one file each; what is off is absent."""
