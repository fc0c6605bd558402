"""Code that depends on a model family. Only this package imports transformers and peft."""
