"""Nodes for ComfyUI, which run inside it. Images are (B,H,W,C) for ComfyUI and (B,3,H,W) for the rest of fluxsr."""
