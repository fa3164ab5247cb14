"""What turns a suite into results; may change at any time, unlike `fpbench.api`."""
