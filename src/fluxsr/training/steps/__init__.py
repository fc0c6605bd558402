"""One file per stage; each says what it trains and which losses it sums, and nothing else."""
