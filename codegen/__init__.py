"""Plan -> artifact folder: readable stage files, sliced weights, the manifest."""
