"""An owner's tools: a fingerprint of one's own model, and a verdict on a suspect."""
