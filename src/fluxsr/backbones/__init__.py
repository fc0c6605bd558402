"""All that FluxSR knows of FLUX; the only room that imports diffusers, transformers or peft."""
