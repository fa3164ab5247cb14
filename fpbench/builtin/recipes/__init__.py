"""Ways to train a model and to obfuscate one."""
