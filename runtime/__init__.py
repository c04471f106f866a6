"""The machine that runs an artifact folder; it needs torch and safetensors, never the compiler."""

from runtime.pipeline import Pipeline as Pipeline
