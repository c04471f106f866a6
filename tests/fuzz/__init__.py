"""Random modules, compiled and compared with themselves uncut: `make fuzz`, or `python -m tests.fuzz SEED`.

draft      a module while it grows: its values at a few sizes
grammar    the statements that it is made of
generator  a seed -> the source of a module
check      a source -> whether its stages compute the same
minimise   a module with a fault -> a smaller one
pool       many seeds on many processes, each with a time limit
"""
