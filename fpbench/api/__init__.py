"""The interface for authors of plugins; `fpbench` itself re-exports its names."""

CONTRACT = 1
"""The version of the data that a method gets and of the rules that judge it.

It is part of every trial's key. Raise it when a change in `api/`, in `compute/` or in the engine's
code for trials can change the results of a method, although the method's own code stays the same.
Stored trials are then run again. Comments, documents, names and new features need no new version.
"""
