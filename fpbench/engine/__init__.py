"""Turn a suite into results. Unlike `fpbench.api`, this package may change at any time."""
