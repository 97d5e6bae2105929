"""Data, training, studies and the command line around `asit_core`, on Ray."""
