"""KServe's own client, which `test_kserve.py` runs where it is installed: asks a server as JSON and as bytes."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig  # type: ignore[import-not-found]


async def ask(url: str, binary: bool) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    ready = [
        await client.is_server_live(url),
        await client.is_server_ready(url),
        await client.is_model_ready(url, "model"),
    ]
    x = InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(numpy.arange(8, dtype=numpy.float32).reshape(2, 4), binary_data=binary)
    answer = await client.infer(url, InferRequest(model_name="model", infer_inputs=[x]), model_name="model")
    [y] = answer.outputs
    try:
        await client.infer(url, InferRequest(model_name="model", infer_inputs=[]), model_name="model")
        refused = ""
    except Exception as e:
        refused = str(e)
    return {"ready": ready, "y": y.as_numpy().tolist(), "refused": refused}


print(json.dumps([asyncio.run(ask(sys.argv[1], binary)) for binary in (False, True)]))
