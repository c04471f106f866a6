"""A small Llama, trained in two processes by torch.distributed.pipelining, from the stage files alone.

    python -m passes.compile examples/train_1f1b.py --stages 2 -o build/llama
    torchrun --nproc-per-node 2 examples/train_1f1b.py build/llama

Special here: training runs nothing of stagecut's.  A stage is an `nn.Module` under the model's own
parameter names, so it goes into a `PipelineStage` and its parameters into an optimizer as they are.

What does not fit: a `PipelineStage` sends all that it returns to the next stage, and to no other.  Values
that skip a stage (a U-Net, an encoder-decoder) cannot go that way, and this script says so; weights that
several stages share would each be trained apart.  The model is trained as it was captured, in eval mode:
without dropout, and with the running statistics it has.
"""

import runpy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY, BATCH, SEQUENCE, MICROBATCHES, STEPS, LEARNING_RATE = 512, 8, 32, 4, 5, 0.5


def model() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, use_cache=False, **sizes, **heads)).eval()


def example_inputs() -> dict[str, Tensor]:
    return {"input_ids": batch(0)[: BATCH // MICROBATCHES]}


dynamic_shapes = {}  # all microbatches are of one size


def batch(step: int) -> Tensor:
    """Texts that count on from somewhere, the same in every process."""
    first = torch.randint(VOCABULARY, (BATCH, 1), generator=torch.Generator().manual_seed(step))
    return (first + torch.arange(SEQUENCE)) % VOCABULARY


def next_token_loss(logits: Tensor | tuple[Tensor], ids: Tensor) -> Tensor:
    [logits] = logits if isinstance(logits, tuple) else [logits]  # a stage returns a tuple
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def main(folder: Path) -> None:
    stages = len(list(folder.glob("stage_*.py")))
    on_gpus = torch.cuda.device_count() >= stages
    dist.init_process_group("nccl" if on_gpus else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", rank) if on_gpus else torch.device("cpu")
    if dist.get_world_size() != stages:
        sys.exit(f"{folder} has {stages} stages; start it with torchrun --nproc-per-node {stages}")
    stage = load(folder, rank, device)
    optimizer = torch.optim.SGD(stage.parameters(), lr=LEARNING_RATE)
    schedule = Schedule1F1B(PipelineStage(stage, rank, stages, device), MICROBATCHES, loss_fn=next_token_loss)
    for step in range(STEPS):
        ids, losses = batch(step).to(device), list[Tensor]()
        schedule.step(*[ids] * (rank == 0), target=ids if rank == stages - 1 else None, losses=losses)
        optimizer.step()
        optimizer.zero_grad()
        if losses:
            print(f"step {step}: loss {torch.stack(losses).mean().item():.7f}", flush=True)
    dist.destroy_process_group()


def load(folder: Path, index: int, device: torch.device) -> nn.Module:
    """A stage whose parameters take gradients."""
    file = runpy.run_path(str(folder / f"stage_{index}.py"))
    if index > 0:
        sends = runpy.run_path(str(folder / f"stage_{index - 1}.py"))["SENDS"]
        if [(name, row[0]) for name, row in file["RECEIVES"].items()] != [(name, index - 1) for name in sends]:
            sys.exit(f"stage {index} receives something else than what stage {index - 1} sends: they are no chain")
    return file[f"Stage{index}"].load(folder / f"stage_{index}.safetensors", device)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
