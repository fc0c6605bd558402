"""Teacher pairs: noise eps and clean latent z_0 that the teacher's flow joins."""
