"""Faults put into an artifact, or into the plan before it is written, all of which `stagecut check` must find.

sample      an artifact that is whole
of_table    faults of the manifest
of_source   faults of stage files
of_files    faults of weights files, and files that are missing
of_plan     faults of the plan
inject      a number -> a fault, and what was found
"""
