"""The whole problem as an integer program, for what the relaxation leaves out.

placement   the rules of a split: groups, memory, where nodes run, and the order of calls
held        the bytes of values that a stage holds at once
any_split   a split that obeys all rules, or the proof that there is none
assignment  the best split
"""
