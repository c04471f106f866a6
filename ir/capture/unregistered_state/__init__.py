"""State that a model keeps from call to call outside of registered buffers: on its modules, or around them.

held          what containers, objects and arrays hold
surroundings  variables outside of the modules that their code reaches
places        everything that attributes, lists, dicts and objects of a model hold
snapshots     copies of all this, and how two differ
restoring     a model and the variables around it, put back as they were
observing     runs of the example -> which of that is state, and which stays as it was
as_buffers    tensors in such places, held in buffers, which an export records as state
"""
