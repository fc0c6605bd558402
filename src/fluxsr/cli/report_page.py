"""HTML page of ``fluxsr evaluate --report``, and the part of it that needs a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from fluxsr.evaluation.comparison import diagnose
from fluxsr.evaluation.page import page
from fluxsr.evaluation.protocols import SCALE
from fluxsr.evaluation.tables import Table
from fluxsr.options import ModelOptions
from fluxsr.processing.scoring import Method
from fluxsr.progress import progress

SIMILARITY_IMAGES = 4
_SIMILARITY_SIDE = 64  # pixels of the low-resolution crop


def html(
    methods: Sequence[Method],
    stems: Sequence[str],
    tables: Sequence[Table],
    lr: Mapping[str, Path],
    similarity: Mapping[str, Sequence[float]],
    where: str = "",
) -> str:
    """Return the page. Its ground truth is the last method, or the folder that the methods were scored against.

    ``tables``, ``lr`` and ``similarity`` are those of ``page``. ``where`` names the benchmark in the title.

    Raises:
        InputError: images cannot be read, or differ in size.
    """
    folders = {method.name: method.folder for method in methods}
    truth = next((method.name for method in methods if method.truth), None)
    if truth is None and methods[0].hr is not None:
        truth = "HR" if "HR" not in folders else "ground truth"
        folders[truth] = methods[0].hr
    with progress(transient=True) as bar:
        task = bar.add_task("look", total=len(stems))
        diagnosis = diagnose(folders, stems, truth=truth, progress=lambda done, _: bar.update(task, completed=done))
    names = [method.name for method in methods if method.name != truth]
    title = f"{' and '.join(names)} on {where or f'{len(stems)} images'}"
    return page(title, tables, diagnosis, folders, truth=truth, lr=lr, similarity=similarity)


def similarity_of(model: ModelOptions, images: Sequence[Path]) -> dict[str, list[float]]:
    """Measure the similarity of tokens in each block of a model, on central crops of the first images.

    Returns:
        For double-stream and single-stream blocks, if there are any: the mean cosine, -1 to 1, between a token and the
        mean token of its image, in the order of the blocks.

    Raises:
        ModelError: the model cannot be loaded.
    """
    import torch

    from fluxsr.backbones.features import attention_taps, block_counts
    from fluxsr.imaging import io, resize
    from fluxsr.losses.attention import adl_loss
    from fluxsr.processing.upscale_file import load

    pipeline = load(model)
    found = []
    for path in images[:SIMILARITY_IMAGES]:
        lr = io.to_tensor(io.read(path).image)
        side = min(_SIMILARITY_SIDE, *lr.shape[-2:]) // 16 * 16
        top, left = ((whole - side) // 2 for whole in lr.shape[-2:])
        lr_up = resize.bicubic(lr[..., top : top + side, left : left + side], (SCALE * side, SCALE * side))
        with attention_taps(pipeline.transformer, pipeline.prompt.prompt_embeds.shape[1]) as taps:
            pipeline.one_step(lr_up)
        found.append([float(adl_loss([tokens])) for tokens in taps])
    values = iter(torch.tensor(found).mean(0).tolist())
    counts = block_counts(pipeline.transformer)
    return {f"{kind}-stream blocks": list(islice(values, count)) for kind, count in counts.items() if count}
