"""Many networks run as one: what needs torch and nothing of this field."""
