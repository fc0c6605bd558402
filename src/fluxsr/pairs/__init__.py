"""Teacher pairs: noise eps and the clean latent z_0 that the teacher's flow connects it to."""
