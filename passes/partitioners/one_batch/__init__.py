"""The time of one batch: a good split and a bound of it, from chains of calls along the ideals of a program.

A call is a stage, or a node on a device that runs node by node. Its seconds are known from the ideal (the set of units
done) where it begins and the one where it ends, and a split is a chain of calls from no unit to all. The time of a
batch is the longest path through its calls, which is no sum over the chain. The average length of some paths is one,
and no more than the longest: so the cheapest chain for an average of paths gives a bound of all splits, and is often a
split as good as that.

    call_table  the calls between ideals, and their seconds
    slack       what calls of easier problems need not hold
    flow        averages of paths, and the share of them that goes through each call
    listed      all calls in turn, with their share
    chains      the cheapest chains of calls
    timed       the chain of calls that ends first, of those that are left
    fastest     the search: paths that make the bound high, and the best split on the way
    easier      problems with fewer ideals that are no harder, whose best splits bound those of the problem
    repair      splits of easier problems made to fit
    climb       splits improved step by step
    lighter     the search over easier problems, and over as coarse ones that are no easier
"""
