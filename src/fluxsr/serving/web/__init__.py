"""``fluxsr web``: the page in the browser. Only ``page``, ``clicks`` and ``server`` import gradio."""
