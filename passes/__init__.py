"""Graph -> Graph, one file a pass; and the way in: compile_model."""

from passes.api import compile_model as compile_model
