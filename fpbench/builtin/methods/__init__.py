"""Controls: methods so simple that any other must beat them."""
