"""``fluxsr web``: the page. Only ``page`` and ``server`` import gradio; ``desk`` and ``work`` know nothing of pages."""
