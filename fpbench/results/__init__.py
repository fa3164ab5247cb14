"""Numbers from matching rates: metrics, summaries, comparisons, and the reader of finished runs."""
