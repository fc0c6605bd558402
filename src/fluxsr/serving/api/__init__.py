"""``fluxsr serve``: upscaling over HTTP. fastapi and uvicorn are imported when the command runs."""
