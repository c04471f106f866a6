"""A handler of one's own for TorchServe, in place of the one that `stagecut package --for torchserve` writes.

A request is {"ids": [2, 7, 1]}, and its answer the most likely next token.
"""

import torch

from runtime.serving.adapters.torchserve import StagecutHandler


class NextToken(StagecutHandler):
    def preprocess(self, request):
        ids = torch.tensor([request["ids"]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def postprocess(self, outputs):
        return outputs["logits"][0, -1].argmax().item()
