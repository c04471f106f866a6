"""Models of images: transformers with and without windows, convolutions, detectors, segmenters, depth."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t

from tests.zoo.entry import BODY, SIZED, TOKENS, Entry, Inputs, convolutional, from_config, ids, vision

VIT = {k: v for k, v in BODY.items() if k != "max_position_embeddings"} | SIZED
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
PYRAMID = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 32, 64]}
HEADS = {"num_attention_heads": [1, 2, 2, 4]}

Base = t.AutoModel
Classify = t.AutoModelForImageClassification
Detect = t.AutoModelForObjectDetection
Segment = t.AutoModelForSemanticSegmentation
Universal = t.AutoModelForUniversalSegmentation


def _vit(head: type[Any], kind: str, **options: Any) -> Entry:
    return vision(head, kind, **{**VIT, **options})


def _swin(head: type[Any], kind: str, **options: Any) -> Entry:
    return vision(head, kind, **{**SWIN, **options})


def _pyramid(head: type[Any], kind: str, **options: Any) -> Entry:
    return convolutional(head, kind, **{**PYRAMID, **options})


# ---- backbones of larger models

RESNET = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 32, 64],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
DETR = {
    "backbone_config": RESNET | {"out_features": ["stage4"]},
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_queries": 8,
}
DEFORMABLE = DETR | {"backbone_config": RESNET, "num_feature_levels": 3, "encoder_n_points": 2, "decoder_n_points": 2}
HYBRID = {
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 32, 64],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "use_pretrained_backbone": False,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [32, 32, 64],
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "num_queries": 8,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_n_points": 2,
    "num_denoising": 0,
}
MASKS = {
    "backbone_config": SWIN
    | {"model_type": "swin", "depths": [1, 1, 1, 1], "num_heads": [2, 4, 4, 4], "image_size": 64, "window_size": 2}
    | {"out_features": ["stage1", "stage2", "stage3", "stage4"]},
    "use_pretrained_backbone": False,
}
DINO = {
    "model_type": "dinov2",
    **{k: v for k, v in VIT.items() if k != "intermediate_size"},
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
    "reshape_hidden_states": False,
    "apply_layernorm": True,
}


def _boxes(batch: int, _: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 3, 64, 64), "pixel_mask": torch.ones(batch, 64, 64, dtype=torch.int64)}


def _detector(kind: str, head: type[Any] = Detect, **options: Any) -> Entry:
    dynamic = {"pixel_values": {0: "batch"}, "pixel_mask": {0: "batch"}}
    return Entry(from_config(head, kind, **options), _boxes, dynamic)


def _noise(batch: int, _: int) -> Inputs:
    """What is masked is drawn, unless it is given."""
    return {"pixel_values": torch.randn(batch, 3, 32, 32), "noise": torch.rand(batch, 16)}


def _video(batch: int, _: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 4, 3, 32, 32)}


def _clip_of(name: str) -> Any:
    return lambda batch, _: {name: torch.randn(batch, 4, 3, 32, 32)}


def _points(batch: int, _: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 3, 64, 64), "input_points": 64 * torch.rand(batch, 1, 2, 2)}


VISION: dict[str, Entry] = {
    # transformers
    "beit": _vit(Classify, "beit", use_relative_position_bias=True),
    "data2vec_vision": _vit(Classify, "data2vec-vision", use_relative_position_bias=True),
    "deit": _vit(Classify, "deit", architectures=["DeiTForImageClassification"]),
    "dinov2": _vit(Classify, "dinov2"),
    "dinov2_registers": _vit(Classify, "dinov2_with_registers"),
    "dinov3_vit": _vit(Base, "dinov3_vit", num_register_tokens=2),
    "donut_swin": _swin(Base, "donut-swin"),
    "hiera": vision(
        Classify,
        "hiera",
        image_size=[64, 64],
        size=64,
        embed_dim=16,
        depths=[1, 1, 2],
        num_heads=[1, 2, 4],
        num_query_pool=2,
        masked_unit_size=[4, 4],
        masked_unit_attention=[True, True, False],
    ),
    "ijepa": _vit(Classify, "ijepa"),
    "imagegpt": Entry(
        from_config(t.AutoModelForImageClassification, "imagegpt", **TOKENS, n_embd=64, n_layer=4, n_head=4),
        lambda batch, seq: {"input_ids": ids(batch, seq)},
        {"input_ids": {0: "batch", 1: "seq"}},
    ),
    "siglip": _vit(Base, "siglip_vision_model"),
    "swin": _swin(Classify, "swin"),
    "swin2sr": vision(
        t.AutoModelForImageToImage,
        "swin2sr",
        image_size=16,
        size=16,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
    ),
    "swinv2": _swin(Classify, "swinv2", pretrained_window_sizes=[0, 0]),
    "vit": _vit(Classify, "vit"),
    "vit_mae": Entry(
        from_config(
            t.AutoModelForPreTraining,
            "vit_mae",
            **VIT,
            decoder_hidden_size=32,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=64,
        ),
        _noise,
        {"pixel_values": {0: "batch"}, "noise": {0: "batch"}},
    ),
    "vit_msn": _vit(Classify, "vit_msn"),
    "vitdet": _vit(Base, "vitdet", pretrain_image_size=32, window_block_indices=[0, 2], window_size=2, mlp_ratio=2),
    # pyramids and convolutions
    "bit": _pyramid(Classify, "bit", embedding_size=16, num_groups=4),
    "convnext": _pyramid(Classify, "convnext"),
    "convnextv2": _pyramid(Classify, "convnextv2"),
    "cvt": vision(
        Classify, "cvt", size=64, embed_dim=[16, 32, 64], num_heads=[1, 2, 4], depth=[1, 2, 3], mlp_ratio=[2.0] * 3
    ),
    "dinov3_convnext": _pyramid(Base, "dinov3_convnext"),
    "efficientnet": convolutional(
        Classify, "efficientnet", width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320
    ),
    "focalnet": vision(Classify, "focalnet", size=64, image_size=64, embed_dim=16, depths=[1, 1, 1, 1]),
    "hgnet_v2": _pyramid(
        Classify,
        "hgnet_v2",
        embedding_size=16,
        stem_channels=[3, 8, 16],
        stage_in_channels=[16, 16, 32, 32],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=[16, 32, 32, 64],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[2, 2, 2, 2],
    ),
    "levit": vision(
        Classify,
        "levit",
        architectures=["LevitForImageClassification"],
        size=64,
        image_size=64,
        hidden_sizes=[16, 32, 64],
        num_attention_heads=[1, 2, 4],
        depths=[1, 1, 1],
    ),
    "mobilenet_v1": convolutional(Classify, "mobilenet_v1", depth_multiplier=0.25),
    "mobilenet_v2": convolutional(Classify, "mobilenet_v2", depth_multiplier=0.25),
    "mobilevit": convolutional(
        Classify, "mobilevit", hidden_sizes=[16, 32, 32], neck_hidden_sizes=[8, 8, 16, 16, 32, 32, 64]
    ),
    "mobilevitv2": convolutional(
        Classify, "mobilevitv2", base_attn_unit_dims=[16, 32, 32], n_attn_blocks=[1, 1, 1], width_multiplier=0.25
    ),
    "poolformer": _pyramid(Classify, "poolformer"),
    "pvt": vision(Classify, "pvt", image_size=32, **PYRAMID, **HEADS),
    "pvt_v2": _pyramid(Classify, "pvt_v2", **HEADS),
    "regnet": _pyramid(Classify, "regnet", embedding_size=16, groups_width=8),
    "resnet": _pyramid(Classify, "resnet", embedding_size=16),
    "swiftformer": convolutional(Classify, "swiftformer", depths=[1, 1, 2, 1], embed_dims=[16, 16, 32, 64]),
    "textnet": vision(
        Classify,
        "textnet",
        size=64,
        image_size=[64, 64],
        stem_out_channels=16,
        hidden_sizes=[16, 16, 32, 32, 64],
        conv_layer_kernel_sizes=[[[3, 3]], [[3, 3]], [[3, 1]], [[1, 3]]],
        conv_layer_strides=[[1], [2], [2], [2]],
    ),
    # detection
    "conditional_detr": _detector("conditional_detr", **DETR),
    "d_fine": _detector("d_fine", **HYBRID),
    "dab_detr": _detector("dab-detr", **DETR, hidden_size=64),
    "deformable_detr": _detector("deformable_detr", **DEFORMABLE),
    "detr": _detector("detr", **DETR),
    "rt_detr": _detector("rt_detr", **HYBRID),
    "rt_detr_v2": _detector("rt_detr_v2", **HYBRID),
    "table_transformer": _detector("table-transformer", **DETR),
    "yolos": _vit(Detect, "yolos", image_size=[32, 32], num_detection_tokens=8),
    # segmentation and depth
    "depth_anything": vision(
        t.AutoModelForDepthEstimation,
        "depth_anything",
        depth_estimation_type="metric",  # the ReLU at the end of the other kind makes it all 0 with these weights
        backbone_config=DINO,
        patch_size=8,
        reassemble_hidden_size=64,
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
        head_hidden_size=8,
    ),
    "dpt": _vit(
        t.AutoModelForDepthEstimation,
        "dpt",
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 32, 32],
        fusion_hidden_size=16,
    ),
    "eomt": _vit(Universal, "eomt", num_blocks=1, num_queries=8, mlp_ratio=2),
    "glpn": convolutional(
        t.AutoModelForDepthEstimation, "glpn", **PYRAMID, **HEADS, decoder_hidden_size=16, mlp_ratios=[2] * 4
    ),
    "mask2former": _detector(
        "mask2former",
        Universal,
        **MASKS,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=2,
        decoder_layers=2,
        num_attention_heads=4,
        num_queries=8,
    ),
    "maskformer": _detector(
        "maskformer",
        t.AutoModelForInstanceSegmentation,
        **MASKS,
        fpn_feature_size=32,
        mask_feature_size=32,
        decoder_config={"model_type": "detr", **{k: v for k, v in DETR.items() if "backbone" not in k}},
    ),
    "sam": Entry(
        from_config(
            t.AutoModelForMaskGeneration,
            "sam",
            vision_config={
                **VIT,
                "image_size": 64,
                "mlp_dim": 128,
                "output_channels": 32,
                "window_size": 4,
                "global_attn_indexes": [1, 3],
                "num_pos_feats": 16,
            },
            prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
            mask_decoder_config={
                "hidden_size": 32,
                "mlp_dim": 64,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": 32,
            },
        ),
        _points,
        {"pixel_values": {0: "batch"}, "input_points": {0: "batch"}},
    ),
    "segformer": _pyramid(Segment, "segformer", **HEADS, decoder_hidden_size=32),
    "upernet": vision(
        Segment,
        "upernet",
        size=64,
        backbone_config={"model_type": "convnext", **PYRAMID, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
        hidden_size=32,
        auxiliary_in_channels=32,
        auxiliary_channels=16,
    ),
    "vitpose": vision(
        t.AutoModelForPoseEstimation,
        "vitpose",
        backbone_config={
            **{k: v for k, v in VIT.items() if k != "intermediate_size"},
            "model_type": "vitpose_backbone",
            "image_size": [32, 32],
            "patch_size": [8, 8],
            "out_features": ["stage4"],
        },
    ),
    # video
    "timesformer": Entry(
        from_config(t.AutoModelForVideoClassification, "timesformer", **VIT, num_frames=4),
        _video,
        {"pixel_values": {0: "batch"}},
    ),
    "videomae": Entry(
        from_config(t.AutoModelForVideoClassification, "videomae", **VIT, num_frames=4),
        _video,
        {"pixel_values": {0: "batch"}},
    ),
    "vivit": Entry(
        from_config(t.AutoModelForVideoClassification, "vivit", **VIT | {"tubelet_size": [2, 8, 8]}, num_frames=4),
        _video,
        {"pixel_values": {0: "batch"}},
    ),
    "vjepa2": Entry(
        from_config(
            t.AutoModelForVideoClassification,
            "vjepa2",
            **VIT,
            crop_size=32,
            frames_per_clip=4,
            num_pooler_layers=1,
            pred_hidden_size=32,
            pred_num_attention_heads=4,
            pred_num_hidden_layers=2,
        ),
        _clip_of("pixel_values_videos"),
        {"pixel_values_videos": {0: "batch"}},
    ),
}
