"""The index of an artifact folder, `manifest.json`.

manifest    its tables, as dataclasses: what the compiler writes and the runtime reads
promises    digests of what programs take and return
digests     digests of files and values, the seal
lines       the names, operators and constants in each line of a stage file
json_table  dataclasses as JSON, and back
schema_2    the JSON as older versions wrote it
"""
