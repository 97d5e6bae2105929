"""Figures and reports of studies; neither Ray nor torch."""
