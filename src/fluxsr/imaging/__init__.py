"""Image processing without a model: read and write files, resize, tile, convert colours."""
