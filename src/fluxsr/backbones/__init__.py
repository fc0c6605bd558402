"""Everything that depends on a model family; the only package that imports diffusers, transformers and peft."""
