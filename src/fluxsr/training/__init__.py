"""Training: the stages of the recipe and the one loop that runs them all."""
