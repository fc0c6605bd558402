"""Our additions to the paper's method; each is off by default at FLUX's size."""
