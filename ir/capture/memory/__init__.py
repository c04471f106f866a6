"""The state that a model keeps from call to call, wherever it hangs on its modules.

places      everything that attributes, lists, dicts and objects of a model hold
observing   runs of the example -> which of that is state, and which stays as it was
as_buffers  tensors in such places, held in buffers, which an export records as state
"""
