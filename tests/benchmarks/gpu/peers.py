"""What others make of the same model and GPUs: one GPU, accelerate, and torch.distributed.pipelining."""

from __future__ import annotations

import os
import statistics
from typing import Any

import torch
from torch import nn

from tests.benchmarks.gpu import llama
from tests.benchmarks.gpu.batches import BATCH, LENGTHS, STREAM, Measured, seconds, tokens


def one_gpu(compiled: bool, batch: int = BATCH, count: int = STREAM) -> Measured:
    model: Any = llama.load()
    if compiled:
        model = torch.compile(model)
    ids = llama.ids(batch).cuda()

    def run(batches: int) -> None:
        for _ in range(batches):
            model(input_ids=ids)

    with torch.no_grad():
        run(STREAM)  # until its clock is that of a long stream, as it is for stages
        rate = count * batch * llama.SEQ / seconds(lambda: run(count))
        measured = {"stream": rate, "alone": statistics.median(seconds(lambda: run(1)) for _ in range(20))}
        if compiled:  # other sizes are compiled anew
            return measured
        changing = [ids[:, :length].contiguous() for length in LENGTHS]

        def run_changing() -> None:
            for given in changing:
                model(input_ids=given)

        run_changing()
        measured["changing"] = BATCH * sum(LENGTHS) / statistics.median(seconds(run_changing) for _ in range(3))
    return measured


def accelerate() -> Measured:
    from accelerate import dispatch_model

    devices = torch.cuda.device_count()
    model = llama.load("cpu")
    layers = llama.CONFIG.num_hidden_layers
    places: dict[str, Any] = {f"model.layers.{i}": i * devices // layers for i in range(layers)}
    places |= {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.norm": devices - 1, "lm_head": devices - 1}
    dispatched = dispatch_model(model, places)
    ids = llama.ids(BATCH).cuda()

    def run(batches: int) -> None:
        for _ in range(batches):
            dispatched(input_ids=ids)

    with torch.no_grad():
        run(8)
        return {"stream": tokens(STREAM) / seconds(lambda: run(STREAM))}


class Slice(nn.Module):
    """The layers of one of N stages, as people cut by hand."""

    def __init__(self, whole: Any, index: int, of: int) -> None:
        super().__init__()
        layers = len(whole.model.layers)
        self.embed = whole.model.embed_tokens if index == 0 else None
        self.layers = whole.model.layers[index * layers // of : (index + 1) * layers // of]
        self.rotary = whole.model.rotary_emb
        self.norm = whole.model.norm if index == of - 1 else None
        self.head = whole.lm_head if index == of - 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.embed is None else self.embed(x)
        places = torch.arange(x.shape[1], device=x.device)[None]
        angles = self.rotary(x, places)
        for layer in self.layers:
            x = layer(x, attention_mask=None, position_ids=places, position_embeddings=angles)
        return x if self.norm is None or self.head is None else self.head(self.norm(x))


def pipelining() -> Measured:
    """torch.distributed.pipelining, under torchrun."""
    from torch import distributed
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    distributed.init_process_group("nccl", device_id=device)
    part = Slice(llama.load(str(device)), rank, world)
    measured: Measured = {}
    with torch.no_grad():
        for count in (16, 64):
            stage = PipelineStage(part, rank, world, device)
            schedule = ScheduleGPipe(stage, count)
            ids = llama.ids(BATCH * count).to(device)

            def step(schedule: Any = schedule, ids: torch.Tensor = ids) -> None:
                schedule.step(*([ids] if rank == 0 else []))

            step()
            distributed.barrier()
            took = []
            for _ in range(3):
                distributed.barrier()
                took.append(seconds(step))
            slowest = torch.tensor(statistics.median(took), device=device)
            distributed.all_reduce(slowest, distributed.ReduceOp.MAX)
            measured[str(count)] = tokens(count) / slowest.item()
    distributed.destroy_process_group()
    return measured if rank == 0 else {}
