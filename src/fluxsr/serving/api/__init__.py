"""``fluxsr serve``: upscaling over HTTP. Only this folder imports fastapi and uvicorn, once its command runs."""
