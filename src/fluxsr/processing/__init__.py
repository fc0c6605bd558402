"""The engine under every front end: find inputs, name outputs, read, upscale, write, record, resume, report."""
