"""``fluxsr web``: load the models and serve the page until a signal."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import typer

from fluxsr.options import ModelOptions
from fluxsr.processing import upscale_file
from fluxsr.serving import server
from fluxsr.serving.jobs import JobStore
from fluxsr.serving.limits import WebLimits
from fluxsr.serving.service import UpscaleService
from fluxsr.serving.web_guard import guarded


def serve(models: dict[str, str], loading: ModelOptions, limits: WebLimits, host: str, port: int) -> None:
    """Load the models and serve the page until SIGINT or SIGTERM.

    Args:
        models: the models that visitors choose from, by the names that they see. All stay in memory.
        loading: how the models are loaded.
        limits: what visitors may ask for.
        host, port: the address; port 0 takes a free one.

    Raises:
        InputError: the address cannot be used.
        ModelError: a model cannot be loaded.
        AcceleratorLost: the device failed while it served.
    """
    upscale_file.quieten(max(limits.max_pixels, limits.max_output_pixels))
    with (
        server.listen(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="fluxsr-web-", ignore_cleanup_errors=True) as folder,
    ):
        pipelines = {name: server.load(loading.model_copy(update={"model": model})) for name, model in models.items()}
        service = UpscaleService(pipelines, limits.max_pixels, limits.max_output_pixels)
        store = JobStore(Path(folder), time_limit=limits.time_limit)
        local = listener.getsockname()[0].startswith(("127.", "::1"))
        page = page_server(service, store, limits, local)
        if not local:
            typer.echo("note: whoever reaches this machine can use the page; it has no password", err=True)
        typer.echo(f"open {server.address_of(listener)} (Ctrl-C ends)", err=True)
        server.run(page, store, listener)


def page_server(service: UpscaleService, store: JobStore, limits: WebLimits, local: bool = False) -> server.Server:
    """Return a server of the page. Its files lie in the store's folder; ``local`` is as for ``guarded``."""
    # gradio reads these when it is imported or when a component is created
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(store.folder),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import gradio as gr
    from fastapi import FastAPI

    from fluxsr.serving.web_page import BRUSH, CSS, examples, page

    app: Any = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page(service, store, limits),
        path="/",
        max_file_size=f"{limits.max_upload}mb",
        css_paths=[CSS],
        head_paths=[BRUSH],
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        footer_links=[],
        run_history=False,
        show_error=False,  # unexpected errors go to the log
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )
    folders = [store.folder, *{path.parent for path in examples()}]
    config = server.configured(guarded(app, folders, local), access_log=False, ws="none")
    return server.Server(config, store)
