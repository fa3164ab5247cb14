"""Recipes: ways to train a model and to obfuscate one."""
