"""Formulas of attention masks, for simplify-masks.

In the order in which a mask meets them:

    formulas    the element at an index of a tensor that is made of sizes and constants
    elements    elements as sympy expressions: booleans, numbers, and what a dtype can hold
    regions     conditions decided for all positions on one side of the diagonal
    kinds       whether a mask is causal, or masks nothing
"""
