"""Sweeps over trials: search, storage, results."""
