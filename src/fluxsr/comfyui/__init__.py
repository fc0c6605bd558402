"""FluxSR in ComfyUI. Only ``install`` can be imported without ComfyUI; the rest runs inside it.

Images come as ComfyUI has them, (B,H,W,C), and leave so; everything of ours below sees (B,3,H,W).
"""
