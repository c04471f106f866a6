"""Subcommands that run artifacts, given a model that must be cut first.

serving        serve
generating     generate
compile_flags  the flags of compile in those two, and the new process that has what they made
prepared       the artifact of a source, made and kept where there is none yet
"""
