"""One class for regions that differ in which of their arguments are the same: attention to itself and to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.structure.forms import Forms
from codegen.structure.regions import Region
from ir.graph import Graph, Value


@dataclass(frozen=True)
class Classes:
    """The classes that regions can be calls of, by number."""

    forms: Forms
    number: Mapping[Region, int]
    shown: Mapping[int, Region]  # the region that the code of a class shows
    places: Mapping[Region, tuple[int, ...]]  # what a region gives to its class, where that is not its inputs in order

    def given(self, region: Region) -> tuple[Value, ...]:
        """The arguments that a region gives to its class."""
        inputs = self.forms.border(region).inputs
        return tuple(inputs[i] for i in self.places[region]) if region in self.places else inputs


def shared(form_of: Mapping[Region, int], forms: Forms, graph: Graph) -> Classes:
    """A class for each form, and one for the forms of one of the user's classes that are cases of the most general."""
    regions: dict[int, list[Region]] = {}
    for region, form in form_of.items():
        regions.setdefault(form, []).append(region)
    alike: dict[tuple[str, int], list[int]] = {}
    for form, (first, *_) in regions.items():
        if first.path in graph.modules:
            alike.setdefault((graph.modules[first.path], forms.outline(first)), []).append(form)
    number, places = dict(form_of), dict[Region, tuple[int, ...]]()
    for group in alike.values():
        general = max(group, key=lambda form: len(forms.border(regions[form][0]).inputs))
        for form in group:
            found = forms.arguments(regions[form][0], regions[general][0]) if form != general else None
            if found is not None:
                number |= dict.fromkeys(regions[form], general)
                places |= dict.fromkeys(regions[form], found)
    return Classes(forms, number, {form: found[0] for form, found in regions.items()}, places)
