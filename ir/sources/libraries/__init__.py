"""Folders of libraries other than transformers: each says how its model is made, called and stored.

The files:

    known_folder      a folder that is recognised, read with its library
    timm_folder       timm: a classifier of images
    open_clip_folder  open_clip: an encoder of images and one of texts
    diffusers_folder  diffusers: one model of a pipeline
    diffusers_pipeline  all models of one, each with programs of its own
    diffusers_calls   the arguments of its models
    diffusers_videos  those of its models of videos
    diffusers_derived  those of other models, found by trying
    diffusers_lora    LoRA for one, an adapter of each model
    late_scipy        scipy, imported once it is needed
"""
