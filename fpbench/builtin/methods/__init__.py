"""Controls: simple methods that every other method must outperform."""
