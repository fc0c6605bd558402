"""What the project adds to the paper's method. Everything here is off by default."""
