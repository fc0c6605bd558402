"""The page of ``fluxsr evaluate --report``, and what of it needs a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fluxsr.evaluation.comparison import diagnose
from fluxsr.evaluation.page import page
from fluxsr.evaluation.protocols import SCALE
from fluxsr.evaluation.tables import Table
from fluxsr.processing.scoring import Method
from fluxsr.progress import progress

SIMILARITY_IMAGES = 4
_SIMILARITY_SIDE = 64  # of the low-resolution image, pixels


def html(
    methods: Sequence[Method],
    stems: Sequence[str],
    tables: Sequence[Table],
    lr: Mapping[str, Path],
    similarity: Mapping[str, Sequence[float]],
    where: str = "",
) -> str:
    """The page of these methods; ground truth is the last, or what the others were scored against.

    Args:
        methods: rows of the table.
        stems: of the images.
        tables, lr, similarity: as ``page`` takes them.
        where: name of the benchmark, for the title; else the number of images.

    Raises:
        InputError: images that cannot be read or are not of one size.
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


def similarity_of(
    model: str, config: str | None, adapter: str | None, device: str, images: Sequence[Path]
) -> dict[str, list[float]]:
    """Similarity of tokens in each block of a model, mean over the middles of the first few images.

    Returns:
        "double" and "single" stream, where there are such blocks -> mean cosine between a token and the mean token
        of its image, -1..1, in the order of the blocks.

    Raises:
        ModelError: the model cannot be loaded.
    """
    import torch

    from fluxsr.backbones.features import attention_taps
    from fluxsr.imaging import io, resize
    from fluxsr.losses.attention import adl_loss
    from fluxsr.single import load

    pipeline = load(model, config_folder=config, adapter=adapter, device=device)
    found = []
    for path in images[:SIMILARITY_IMAGES]:
        lr = io.to_tensor(io.read(path).image)
        side = min(_SIMILARITY_SIDE, *lr.shape[-2:]) // 16 * 16
        top, left = ((whole - side) // 2 for whole in lr.shape[-2:])
        lr_up = resize.bicubic(lr[..., top : top + side, left : left + side], (SCALE * side, SCALE * side))
        with attention_taps(pipeline.transformer, pipeline.prompt.prompt_embeds.shape[1]) as taps:
            pipeline.one_step(lr_up)
        found.append([float(adl_loss([tokens])) for tokens in taps])
    means = torch.tensor(found).mean(0).tolist()
    double = len(pipeline.transformer.transformer_blocks)
    streams = {"double-stream blocks": means[:double], "single-stream blocks": means[double:]}
    return {name: values for name, values in streams.items() if values}
