"""The rows of q, k and v in fused projections, proved by what a change of one row does to the attention.

Nothing here reads the layout: a constant is added to one row of the projection's output, at one token, and
what it changes in the attention's output (before its last projection) gives the row away.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm import layers as timm_layers
from timm import models as timm_models
from timm.layers.attention2d import Attention2d as LayersAttention2d
from timm.models.coat import ConvRelPosEnc, FactorAttnConvRelPosEnc
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import visionlora as vl
from visionlora.adapters import qkv as layouts
from visionlora.adapters.layer import effective_weight

# Which part changes one token's output only, which one channel of every token, and which several channels of every
# token. Attention over tokens: a query is read by its own token, a value's channel goes nowhere else.
OVER_TOKENS = {"token": "q", "channel": "v", "everything": "k"}
# Attention over channels: a query is a row of the (channels, channels) map, and the values stay with their tokens.
OVER_CHANNELS = {"token": "v", "channel": "q", "everything": "k"}
# The same where k and v make the map, and q is what it is applied to.
OVER_CHANNELS_OF_Q = {"token": "q", "channel": "k", "everything": "v"}


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (1, 6, 8)
    more: tuple[Any, ...] = ()
    qkv: str = "qkv"
    projection: str = "proj"
    roles: dict[str, str] = field(default_factory=lambda: OVER_TOKENS)


def _diff_attention() -> nn.Module:
    attention = timm_layers.DiffAttention(8, 2)
    attention.sub_norm = nn.Identity()  # a norm over channels would spread what one channel does
    return attention


def _coat() -> nn.Module:
    return FactorAttnConvRelPosEnc(8, 2, shared_crpe=ConvRelPosEnc(4, 2, {3: 2}))


def _levit(use_conv: bool) -> nn.Module:
    return timm_models.levit.Attention(8, 3, 2, 2.0, (2, 3), use_conv, act_layer=nn.Identity)


def _swin_torchvision(version: str) -> nn.Module:
    return getattr(torchvision.models.swin_transformer, f"ShiftedWindowAttention{version}")(8, [2, 3], [0, 0], 2)


MAP, GRID, WINDOW = (1, 8, 2, 3), (1, 2, 3, 8), (2, 3)
CASES = [
    Case("vit", lambda: timm_layers.Attention(8, 2)),
    Case("vit_qk_norm", lambda: timm_layers.Attention(8, 2, qk_norm=True, norm_layer=nn.LayerNorm)),
    Case("rope", lambda: timm_layers.AttentionRope(8, 2)),
    Case("attention_2d", lambda: LayersAttention2d(8, num_heads=2), MAP),
    Case("attention_2d_head_first", lambda: LayersAttention2d(8, num_heads=2, head_first=True), MAP),
    Case("attention_pool", lambda: timm_layers.AttentionPool2d(8, (2, 3), head_dim=4), MAP),
    Case("rotary_attention_pool", lambda: timm_layers.RotAttentionPool2d(8, ref_feat_size=WINDOW, head_dim=4), MAP),
    Case("differential", _diff_attention),
    Case("beit", lambda: timm_models.beit.Attention(8, 2)),
    Case("beit_bias", lambda: timm_models.beit.Attention(8, 2, qkv_bias=True)),
    Case("cait", lambda: timm_models.cait.TalkingHeadAttn(8, 2)),
    Case("coat", _coat, (1, 7, 8), (WINDOW,)),
    Case("convit", lambda: timm_models.convit.MHSA(8, 2)),
    Case("davit_channels", lambda: timm_models.davit.ChannelAttention(8, 2), roles=OVER_CHANNELS_OF_Q),
    Case("davit_channels_v2", lambda: timm_models.davit.ChannelAttentionV2(8, 2), roles=OVER_CHANNELS),
    Case("davit_window", lambda: timm_models.davit.WindowAttention(8, WINDOW, 2)),
    Case("edgenext", lambda: timm_models.edgenext.CrossCovarianceAttn(8, 2), roles=OVER_CHANNELS),
    Case("eva", lambda: timm_models.eva.EvaAttention(8, 2, scale_norm=False)),
    Case("fastvit", lambda: timm_models.fastvit.Attention(8, 4), MAP),
    Case("gcvit_local", lambda: timm_models.gcvit.WindowAttentionGlobal(8, 2, WINDOW, use_global=False)),
    Case("hiera", lambda: timm_models.hiera.MaskUnitAttention(8, 8, 2)),
    Case("hiera_windows", lambda: timm_models.hiera.MaskUnitAttention(8, 8, 2, 1, 6, use_mask_unit_attn=True)),
    Case("sam2", lambda: timm_models.hieradet_sam2.MultiScaleAttention(8, 8, 2), GRID),
    Case("metaformer", lambda: timm_models.metaformer.Attention(8, 4)),
    Case(
        "mvitv2",
        lambda: timm_models.mvitv2.MultiScaleAttention(8, 8, (2, 2), 2, has_cls_token=False),
        (1, 4, 8),
        ((2, 2),),
    ),
    Case("nest", lambda: timm_models.nest.Attention(8, 2), (1, 1, 6, 8)),
    Case("swin", lambda: timm_models.swin_transformer.WindowAttention(8, 2, window_size=WINDOW)),
    Case("swin_v2", lambda: timm_models.swin_transformer_v2.WindowAttention(8, WINDOW, 2)),
    Case("swin_v2_cr", lambda: timm_models.swin_transformer_v2_cr.WindowMultiHeadAttention(8, 2, WINDOW)),
    Case("twins", lambda: timm_models.twins.LocallyGroupedAttn(8, 2, ws=2), (1, 4, 8), ((2, 2),)),
    Case("vit_relpos", lambda: timm_models.vision_transformer_relpos.RelPosAttention(8, 2)),
    Case("sam", lambda: timm_models.vision_transformer_sam.Attention(8, 2, use_rel_pos=True, input_size=WINDOW), GRID),
    Case("visformer", lambda: timm_models.visformer.Attention(8, 2), MAP),
    Case("volo", lambda: timm_models.volo.Attention(8, 2), GRID),
    Case("xcit", lambda: timm_models.xcit.XCA(8, 2), roles=OVER_CHANNELS),
    Case("efficientformer", lambda: timm_models.efficientformer.Attention(8, 3, 2, 2, 2), (1, 4, 8)),
    Case("levit", lambda: _levit(use_conv=False), qkv="qkv.linear", projection="proj.ln.linear"),
    Case("levit_conv", lambda: _levit(use_conv=True), MAP, qkv="qkv.linear", projection="proj.ln.linear"),
    Case("tiny_vit", lambda: timm_models.tiny_vit.Attention(8, 3, 2, 2, WINDOW)),
    Case("maxxvit_conv", lambda: timm_models.maxxvit.Attention2d(8, dim_head=4, head_first=False), MAP),
    Case("maxxvit_conv_head_first", lambda: timm_models.maxxvit.Attention2d(8, dim_head=4), MAP),
    Case("maxxvit_linear", lambda: timm_models.maxxvit.AttentionCl(8, dim_head=4, head_first=False), GRID),
    Case("maxxvit_linear_head_first", lambda: timm_models.maxxvit.AttentionCl(8, dim_head=4), GRID),
    Case(
        "torchvision_maxvit",
        lambda: torchvision.models.maxvit.RelativePositionalMultiHeadAttention(8, 4, 4),
        (1, 1, 4, 8),
        qkv="to_qkv",
        projection="merge",
    ),
    Case("torchvision_swin", lambda: _swin_torchvision(""), GRID),
    Case("torchvision_swin_v2", lambda: _swin_torchvision("V2"), GRID),
]


class Shift(TorchFunctionMode):
    """Add 1 to one row of what ``qkv`` answers at one token; keep what ``projection`` is given, (tokens, channels).

    It looks at the functions, not at the modules: several classes read ``qkv.weight`` and never call ``qkv``.
    """

    def __init__(self, qkv: nn.Module, projection: nn.Module, row: int | None, token: int = 1) -> None:
        super().__init__()
        self.qkv, self.projection, self.row, self.token = qkv, projection, row, token
        self.seen = torch.empty(0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
        if func not in (F.linear, F.conv2d) or weight is None:
            return func(*args, **kwargs)
        if weight is self.projection.weight:
            self.seen = _by_token(args[0], func).clone()
        out = func(*args, **kwargs)
        if weight is self.qkv.weight and self.row is not None:
            shift = torch.zeros_like(out)
            _by_token(shift, func)[self.token, self.row] = 1
            out = out + shift
        return out


def _by_token(x: Tensor, func: Any) -> Tensor:
    """(1, C, H, W) of a convolution or (1, ..., C) of a linear layer -> a view (tokens, C)."""
    return x[0].flatten(1).T if func is F.conv2d else x.view(-1, x.shape[-1])


def effect(change: Tensor, token: int = 1) -> str:
    """What a change (tokens, channels) of the attention's output covers."""
    changed = change.abs() > 1e-12
    if not changed.any(1).all():
        assert changed.any(1).nonzero().flatten().tolist() == [token]
        return "token"
    return "channel" if changed.any(0).sum() == 1 else "everything"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_row_does_what_its_part_says(case: Case) -> None:
    attention = case.make().double().requires_grad_(False)
    attention.eval()
    for parameter in attention.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter))  # some biases and tables start at zero
    qkv, projection = attention.get_submodule(case.qkv), attention.get_submodule(case.projection)
    x = torch.randn(case.shape, dtype=torch.float64)

    def run(row: int | None) -> Tensor:
        with Shift(qkv, projection, row) as shift:
            attention(x, *case.more)
        return shift.seen

    expected = run(None)
    found: dict[str, list[int]] = {"q": [], "k": [], "v": []}
    for row in range(qkv.weight.shape[0]):
        found[case.roles[effect(run(row) - expected)]].append(row)
    model = nn.ModuleDict({"attn": attention})
    assert {part: layouts.part_rows(model, f"attn.{case.qkv}", part).tolist() for part in "qkv"} == found


def test_the_cases_cover_every_listed_class() -> None:
    listed = layouts._THIRDS | layouts._HEAD_BY_HEAD | layouts._HEAD_FIRST_OPTION
    assert {layouts._class_name(case.make()) for case in CASES} == listed


def test_several_parts_are_the_union_of_their_rows_in_order() -> None:
    model = nn.ModuleDict({"attn": timm_models.tiny_vit.Attention(8, 3, 2, 2, WINDOW)})
    both = layouts.part_rows(model, "attn.qkv", "v,q").tolist()
    single = [row for part in "qv" for row in layouts.part_rows(model, "attn.qkv", part).tolist()]
    assert both == sorted(single) and len(set(both)) == len(both)


class MyAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)


def test_an_unknown_class_is_refused_by_name_with_the_way_out() -> None:
    model = nn.Sequential(MyAttention())
    with pytest.raises(vl.InputError) as error:
        vl.attach(model, vl.LoRAConfig(targets=["0.qkv:q,v"]))
    message = str(error.value)
    assert "MyAttention" in message and "0.qkv" in message and "adapt the whole layer" in message
    assert "\n" not in message and not vl.adapter_names(model)


def test_a_subclass_that_may_order_otherwise_is_refused() -> None:
    class Reordered(timm_layers.Attention):
        pass

    with pytest.raises(vl.InputError, match="Reordered"):
        layouts.part_rows(nn.Sequential(Reordered(8, 2)), "0.qkv", "q")


def test_a_projection_that_is_not_q_k_v_is_refused() -> None:
    """GCViT's global blocks have (k, v) in what they call ``qkv``; ``proj`` has no parts at all."""
    model = nn.Sequential(
        timm_models.gcvit.WindowAttentionGlobal(8, 2, WINDOW, use_global=True), timm_layers.Attention(9, 3)
    )
    for name in ("0.qkv", "0.proj", "1.proj"):
        with pytest.raises(vl.InputError, match="is not known"):
            layouts.part_rows(model, name, "v")


def _train_a_step(model: nn.Module, *inputs: Tensor) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):  # A gets its first gradient when B is no longer zero
        out = model(*inputs)
        (out[0] if isinstance(out, tuple) else out).square().sum().backward()
        optimizer.step()


def test_parts_change_only_their_rows() -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=3
    )
    frozen = model.blocks[0].attn.qkv.weight.detach().clone()
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn.qkv:q,v"]))
    assert model.blocks[0].attn.qkv.adapters["default"]["weight"].lora_B.shape == (64, 2)
    _train_a_step(model, torch.randn(2, 3, 32, 32))
    weight = model.blocks[0].attn.qkv.weight
    assert torch.equal(weight[32:64], frozen[32:64])
    assert all((weight[rows] != frozen[rows]).any(1).all() for rows in (slice(0, 32), slice(64, 96)))


@pytest.mark.parametrize("separate", [False, True], ids=["in_proj_weight", "separate weights"])
def test_multihead_attention_parts(separate: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, **({"kdim": 6, "vdim": 4} if separate else {}))
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"] if separate else ["in_proj_weight"]
    frozen = {name: attention._parameters[name].detach().clone() for name in names}
    model = nn.ModuleDict({"attn": attention})
    vl.attach(model, vl.LoRAConfig(rank=2, targets=["attn:q,v"]))
    inputs = [torch.randn(2, 5, width) for width in ((8, 6, 4) if separate else (8, 8, 8))]
    _train_a_step(attention, *inputs)
    now = {
        name: effective_weight(attention, name) if not separate or name[0] in "qv" else attention._parameters[name]
        for name in names
    }
    if separate:
        assert set(attention.adapters["default"]) == {"q_proj_weight", "v_proj_weight"}
        assert torch.equal(now["k_proj_weight"], frozen["k_proj_weight"])
        assert all((now[name] != frozen[name]).any(1).all() for name in ("q_proj_weight", "v_proj_weight"))
    else:
        weight, before = now["in_proj_weight"], frozen["in_proj_weight"]
        assert torch.equal(weight[8:16], before[8:16])
        assert (weight[:8] != before[:8]).any(1).all() and (weight[16:] != before[16:]).any(1).all()


def test_parts_of_multihead_attention_are_its_query_key_and_value() -> None:
    """The rows of ``in_proj_weight``, by the formula that the layer computes."""
    attention = nn.MultiheadAttention(8, 1, bias=False, batch_first=True).double().requires_grad_(False)
    model = nn.ModuleDict({"attn": attention})
    query, key, value = (torch.randn(1, 5, 8, dtype=torch.float64) for _ in range(3))
    rows = {part: layouts.part_rows(model, "attn", part) for part in "qkv"}
    q, k, v = (x @ attention.in_proj_weight[rows[part]].T for x, part in ((query, "q"), (key, "k"), (value, "v")))
    expected = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v @ attention.out_proj.weight.T
    torch.testing.assert_close(attention(query, key, value)[0], expected)
