"""Finished work on disk: models and trials, verified when they are read."""
