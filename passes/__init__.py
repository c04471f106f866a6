"""Graph -> Graph, one file a pass; and the ways in: compile_model, auto_partition."""

from passes.api import compile_model as compile_model
from passes.auto import auto_partition as auto_partition
