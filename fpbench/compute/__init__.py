"""Run many networks as one. This room needs torch and no word of this field."""
