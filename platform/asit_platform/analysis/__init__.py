"""Statistics of finished studies; neither Ray nor torch."""
