#!/bin/sh
# Writes {{name}}.mar, of a few kilobytes: the artifact stays where it is.
set -e
cd "$(dirname "$0")"
torch-model-archiver --model-name {{name}} --version 1.0 --handler handler.py --config-file model-config.yaml --export-path . --force
