"""Results for people: the terminal, figures, MLflow, the page of a run, the leaderboard."""
