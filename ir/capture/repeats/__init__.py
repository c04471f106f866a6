"""Layers that are alike: recorded once a kind, and repeated in the graph.

Two calls of modules are of one kind if the modules have the same classes, plain attributes (an index aside) and types
of tensors, and are called at the same place with the same types.  The second call of a kind is its template.  In each
later one the layer's own code runs beside the template: as long as it calls the same functions on the corresponding
tensors, it is given the template's results without anything being recorded.  Where it does something else, all is
recorded in full.

alike          the modules of a model that may be of one kind
kept           tensors that a layer leaves in objects that it is given
call_recorder  a call of a layer, noted function by function
holders        what else holds the tensors that a call made, or lies in their memory
template       what a call of a layer did
replay         a later call beside a template
again          the operator that stands for a later call in an export
layers         an export in which the layers are watched
constants      the tensors of numbers in the code of layers
numbering      the names that torch gives the nodes of a full export
expanded       the graph with the template's nodes in place of each such operator
"""
