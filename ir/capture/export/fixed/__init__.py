"""Inputs and buffers whose values decide shapes.

fixed_inputs  such inputs and buffers, captured at their values in the example
known_values  fixed values and what is made of them alone, known while a model is traced
origins       the inputs and buffers that a value which decides is made of
"""
