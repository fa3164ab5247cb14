"""What fpbench promises to those who write plugins; re-exported by `fpbench` itself."""
