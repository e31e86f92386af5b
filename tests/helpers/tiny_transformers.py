"""Vision models of transformers with random weights, a fraction of their size, and what they are called with."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

LAYERS = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "d_model": 32}
SMALL = {"num_queries": 5, **LAYERS, **HEADS}
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def _resnet(*stages: str) -> Any:
    return transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(stages),
    )


def _detr() -> nn.Module:
    config = transformers.DetrConfig(use_timm_backbone=False, backbone_config=_resnet("stage4"), num_labels=3, **SMALL)
    return transformers.DetrForObjectDetection(config)


def _conditional_detr() -> nn.Module:
    config = transformers.ConditionalDetrConfig(
        use_timm_backbone=False, backbone_config=_resnet("stage4"), num_labels=3, **SMALL
    )
    return transformers.ConditionalDetrForObjectDetection(config)


def _deformable_detr(**more: Any) -> nn.Module:
    config = transformers.DeformableDetrConfig(
        use_timm_backbone=False,
        backbone_config=_resnet("stage2", "stage3", "stage4"),
        num_feature_levels=3,
        num_labels=3,
        **more,
        **SMALL,
    )
    return transformers.DeformableDetrForObjectDetection(config)


def _rt_detr_parts() -> dict[str, Any]:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return {
        "backbone_config": backbone,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [16, 24, 32],
        "decoder_in_channels": [32, 32, 32],
        "num_queries": 5,
        "num_denoising": 0,
        "num_labels": 3,
        "eval_size": None,
        **LAYERS,
        **HEADS,
    }


def _rt_detr_v2() -> nn.Module:
    return transformers.RTDetrV2ForObjectDetection(transformers.RTDetrV2Config(**_rt_detr_parts()))


def _d_fine() -> nn.Module:
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 16, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 16, 24],
        hidden_sizes=[8, 16, 16, 24],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    parts = {**_rt_detr_parts(), "backbone_config": backbone, "encoder_in_channels": [16, 16, 24]}
    return transformers.DFineForObjectDetection(transformers.DFineConfig(**parts))


def _swinv2() -> nn.Module:
    config = transformers.Swinv2Config(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=3
    )
    return transformers.Swinv2ForImageClassification(config)


def _clip() -> nn.Module:
    text = {**VISION, "vocab_size": 50, "max_position_embeddings": 10}
    vision = {**VISION, "image_size": 32, "patch_size": 8}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def _sam() -> nn.Module:
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "output_channels": 16,
        "image_size": 64,
        "patch_size": 8,
        "mlp_dim": 32,
        "global_attn_indexes": [1],
        "window_size": 4,
        "num_pos_feats": 8,
    }
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 8}
    mask = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask)
    return transformers.SamModel(config)


def _pixels(side: int) -> dict[str, Any]:
    return {"pixel_values": torch.rand(2, 3, side, side)}


Make = tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]]]

DETECTORS: dict[str, Make] = {
    "DETR": (_detr, lambda: _pixels(64)),
    "Conditional DETR": (_conditional_detr, lambda: _pixels(64)),
    "Deformable DETR": (_deformable_detr, lambda: _pixels(64)),
    "RT-DETRv2": (_rt_detr_v2, lambda: _pixels(64)),
    "D-FINE": (_d_fine, lambda: _pixels(64)),
}
OTHERS: dict[str, Make] = {
    "SwinV2": (_swinv2, lambda: _pixels(32)),
    "CLIP": (_clip, lambda: {"input_ids": torch.arange(8).view(2, 4), **_pixels(32)}),
    "SAM": (_sam, lambda: {"input_points": torch.rand(2, 1, 1, 2) * 64, **_pixels(64)}),
}
