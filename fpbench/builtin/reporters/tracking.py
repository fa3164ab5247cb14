"""Curves of all methods, drawn into the run's folder."""
