"""Who tells what happened: the terminal, figures, MLflow."""
