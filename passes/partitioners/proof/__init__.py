"""A better cut, or the proof that there is none.

The first calls the others, from the quickest to the most general:

    prove            which of them to use, and when to stop
    relaxed          a simpler problem whose optimum is a lower bound
    contract         units fused that some best split keeps together
    ideals           the ideals of a program (downward closed sets), listed by weight
    ideal_pairs      the loads of all stages between two lists of ideals
    dominated        ideals that need not be kept
    exact            a dynamic program over the ideals
    integer_program  the relaxed problem as an integer program, where there are too many ideals
    whole/           the whole problem as an integer program, where the relaxation is not enough
    cp_sat           OR-tools' CP-SAT solver, for both
"""
