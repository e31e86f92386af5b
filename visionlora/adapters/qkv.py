"""Which rows of a fused projection are q, k and v, by the class that reads them.

Most attention layers read ``(3, heads, head_dim)``: thirds. Some go head by head, and there the rows
of q alone are scattered. Nothing in a weight's shape tells the two apart, so a class that is not
listed here is refused.
"""

import torch
from torch import Tensor, nn

from visionlora.errors import InputError

PARTS = ("q", "k", "v")

# timm 1.0.31 and torchvision 0.29: classes whose ``qkv`` is read as (3, heads, head_dim).
_THIRDS = frozenset(
    {
        "timm.layers.attention.Attention",
        "timm.layers.attention.AttentionRope",
        "timm.layers.attention_pool2d.AttentionPool2d",
        "timm.layers.attention_pool2d.RotAttentionPool2d",
        "timm.layers.diff_attention.DiffAttention",
        "timm.models.beit.Attention",
        "timm.models.cait.TalkingHeadAttn",
        "timm.models.coat.FactorAttnConvRelPosEnc",
        "timm.models.convit.MHSA",
        "timm.models.davit.ChannelAttention",
        "timm.models.davit.ChannelAttentionV2",
        "timm.models.davit.WindowAttention",
        "timm.models.edgenext.CrossCovarianceAttn",
        "timm.models.eva.EvaAttention",
        "timm.models.fastvit.Attention",
        "timm.models.gcvit.WindowAttentionGlobal",
        "timm.models.hiera.MaskUnitAttention",
        "timm.models.hieradet_sam2.MultiScaleAttention",
        "timm.models.metaformer.Attention",
        "timm.models.mvitv2.MultiScaleAttention",
        "timm.models.nest.Attention",
        "timm.models.swin_transformer.WindowAttention",
        "timm.models.swin_transformer_v2.WindowAttention",
        "timm.models.swin_transformer_v2_cr.WindowMultiHeadAttention",
        "timm.models.twins.LocallyGroupedAttn",
        "timm.models.vision_transformer_relpos.RelPosAttention",
        "timm.models.vision_transformer_sam.Attention",
        "timm.models.visformer.Attention",
        "timm.models.volo.Attention",
        "timm.models.xcit.XCA",
        "torchvision.models.maxvit.RelativePositionalMultiHeadAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttentionV2",
    }
)
# Read as (heads, [q | k | v]), with q and k of key_dim and v of val_dim.
_HEAD_BY_HEAD = frozenset(
    {
        "timm.models.efficientformer.Attention",
        "timm.models.levit.Attention",
        "timm.models.tiny_vit.Attention",
    }
)
# Either of the two, as the instance's ``head_first`` says.
_HEAD_FIRST_OPTION = frozenset(
    {
        "timm.layers.attention2d.Attention2d",
        "timm.models.maxxvit.Attention2d",
        "timm.models.maxxvit.AttentionCl",
    }
)


def part_rows(model: nn.Module, path: str, parts: str) -> Tensor:
    """Rows of the layer at ``path`` that belong to the parts.

    Args:
        path: name of a fused q, k, v projection.
        parts: comma-separated, of ``q``, ``k``, ``v``.

    Returns:
        (n,) int64 indices in increasing order.

    Raises:
        InputError: the class that reads the projection is not known to ``visionlora.adapters.qkv``.
    """
    layer = model.get_submodule(path)
    if isinstance(layer, nn.MultiheadAttention):
        layout = _thirds(3 * layer.embed_dim)
    else:
        reader, attribute = _reader(model, path)
        layout = _layout(reader, attribute, layer, path)
    return torch.cat([layout[part] for part in PARTS if part in parts.split(",")]).sort().values


def _reader(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The attention module above the layer, and the layer's name inside it (LeViT has ``qkv.linear``)."""
    components = path.split(".")
    for depth in (1, 2):
        reader = model.get_submodule(".".join(components[:-depth]))
        if _class_name(reader) in _THIRDS | _HEAD_BY_HEAD | _HEAD_FIRST_OPTION:
            return reader, components[-depth]
    return model.get_submodule(".".join(components[:-1])), components[-1]


def _layout(reader: nn.Module, attribute: str, layer: nn.Module, path: str) -> dict[str, Tensor]:
    name, n_rows = _class_name(reader), _n_rows(layer)
    # gcvit's global blocks call a (k, v) projection ``qkv``.
    if attribute in ("qkv", "to_qkv") and not getattr(reader, "use_global", False):
        if name in _HEAD_BY_HEAD:
            return _head_by_head(n_rows, reader.num_heads, reader.key_dim, reader.val_dim)  # type: ignore[arg-type]
        if name in _HEAD_FIRST_OPTION and getattr(reader, "head_first", False):
            return _head_by_head(n_rows, reader.num_heads, reader.dim_head, reader.dim_head)  # type: ignore[arg-type]
        if name in _THIRDS or name in _HEAD_FIRST_OPTION:
            return _thirds(n_rows)
    raise InputError(
        f"target '{path}': how {name} orders q, k and v in '{attribute}' is not known; "
        f"adapt the whole layer instead (without the part after ':')"
    )


def _thirds(n_rows: int) -> dict[str, Tensor]:
    return dict(zip(PARTS, torch.arange(n_rows).chunk(3), strict=True))


def _head_by_head(n_rows: int, heads: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    rows = torch.arange(n_rows).view(heads, 2 * key_dim + value_dim)
    split = rows.split([key_dim, key_dim, value_dim], dim=1)
    return {part: block.flatten() for part, block in zip(PARTS, split, strict=True)}


def _n_rows(layer: nn.Module) -> int:
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight.shape[0]


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
