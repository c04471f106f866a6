"""Asks a model that `stagecut serve` serves for its outputs, by Triton's client.

python examples/serve_client.py 127.0.0.1:8000 NAME
"""

import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import triton_to_np_dtype


def main(address: str, name: str) -> None:
    with triton.InferenceServerClient(address) as client:
        inputs = []
        for told in client.get_model_metadata(name)["inputs"]:
            shape = [1 if size < 0 else size for size in told["shape"]]  # -1: any size
            given = triton.InferInput(told["name"], shape, told["datatype"])
            given.set_data_from_numpy(np.ones(shape, triton_to_np_dtype(told["datatype"])))
            inputs.append(given)
        answer = client.infer(name, inputs)
        for output in answer.get_response()["outputs"]:
            print(output["name"], output["datatype"], output["shape"])


if __name__ == "__main__":
    main(*sys.argv[1:])
