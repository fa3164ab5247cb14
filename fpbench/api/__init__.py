"""What fpbench promises to those who write plugins; re-exported by `fpbench` itself."""

CONTRACT = 1
"""The version of what a method is given and of how it is judged; part of every trial's key.

Raise it when a change in `api/`, in `compute/` or in how the engine attempts a trial can change the
results of a method whose own code stays the same: kept trials are then tried again. Comments,
documents, names and new features need no new version.
"""
