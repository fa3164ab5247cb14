"""The learning tasks that come with fpbench."""
