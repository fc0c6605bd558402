"""Serve the page: load the models once, bind, say where, clean up."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import typer

from fluxsr.errors import AcceleratorLost, OutputError
from fluxsr.options import ModelOptions
from fluxsr.pipeline import FluxSRPipeline
from fluxsr.processing import upscale_file
from fluxsr.serving.web.desk import Desk
from fluxsr.serving.web.guard import guarded
from fluxsr.serving.web.limits import Limits
from fluxsr.serving.web.work import Studio
from fluxsr.training.stopping import stop_flag


def serve(models: dict[str, str], loading: ModelOptions, limits: Limits, host: str, port: int) -> None:
    """Until SIGINT or SIGTERM.

    Args:
        models: those that visitors choose from, by the names that they see; all are loaded now and stay.
        loading: how they are loaded.
        host, port: where; port 0 takes any that is free.

    Raises:
        OutputError: the address cannot be had.
        ModelError: a model cannot be loaded.
        AcceleratorLost: the device failed while it served.
    """
    temporary = tempfile.TemporaryDirectory(prefix="fluxsr-web-", ignore_cleanup_errors=True)
    upscale_file.quieten(max(limits.max_pixels, limits.max_output_pixels))
    with bound(host, port) as door, temporary as folder:
        studio = Studio(
            {name: _loaded(loading.model_copy(update={"model": model})) for name, model in models.items()}, limits
        )
        desk = Desk(Path(folder), limits.time_limit)
        local = door.getsockname()[0].startswith(("127.", "::1"))
        server = server_of(studio, desk, local)
        if not local:
            typer.echo("note: whoever reaches this machine can use the page; it has no password", err=True)
        typer.echo(f"open http://{_shown(door)} (Ctrl-C ends)", err=True)
        with stop_flag():  # for uvicorn, which raises the signal again once it has ended; while models load, it acts
            server.run(sockets=[door])
    if desk.lost:
        raise AcceleratorLost(desk.lost)


def server_of(studio: Studio, desk: Desk, local: bool = False) -> Any:
    """Return a uvicorn server of the page. Its files lie in the desk's folder; ``local`` is as for `guarded`."""
    # all of it read when gradio is imported, or when a component is made
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(desk.root),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    from fluxsr.serving.web.page import CSS, examples, page

    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page(studio, desk),
        path="/",
        max_file_size=f"{studio.limits.max_upload}mb",
        css_paths=[CSS],
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        footer_links=[],
        run_history=False,
        show_error=False,  # what we did not foresee is for the log
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            desk.close()  # or the work would go on while the server waits for its answers
            super().handle_exit(sig, frame)

        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or bool(desk.lost)

    folders = [desk.root, *{path.parent for path in examples()}]
    config = uvicorn.Config(
        guarded(app, folders, local), log_level="warning", access_log=False, timeout_graceful_shutdown=3, ws="none"
    )
    return Server(config)


def bound(host: str, port: int) -> socket.socket:
    """A listening socket, before minutes are spent on a model.

    Raises:
        OutputError: the address is taken, or not this machine's.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        door = socket.socket(family, kind, proto)
        if os.name == "posix":  # on Windows it would let two servers share the port
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen()  # who comes while the model is loaded waits
        return door
    except OSError as error:
        raise OutputError(f"{host}:{port} cannot be had: {error.strerror}; choose another --host or --port") from error


def _shown(door: socket.socket) -> str:
    host, port = door.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _loaded(model: ModelOptions) -> FluxSRPipeline:
    pipeline = upscale_file.load(model)
    typer.echo(f"model: {upscale_file.describe(pipeline)}", err=True)
    typer.echo(f"plan: {pipeline.plan.line()}", err=True)
    return pipeline
