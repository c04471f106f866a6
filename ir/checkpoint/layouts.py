"""Folders of weights: which of their files hold them, and what other folders are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ir.checkpoint.formats.foreign import library_of, require_own
from ir.checkpoint.formats.gguf.file import SUFFIX
from ir.checkpoint.formats.ranks import is_of_one_job
from ir.checkpoint.formats.recognized import other_folder
from ir.checkpoint.formats.sharded import METADATA
from ir.errors import SourceError

_NAMES = (
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)
"""File names that transformers and diffusers save under, in the order in which they look for them."""

_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}")  # in the name of one of several files

_DIVIDED = re.compile(r"shard-\d{5}-model-")  # the names of what each rank writes for the Hugging Face hub

_OF_A_RUN = re.compile(
    r"(optimizer|scheduler|scaler|sampler|dl_state_dict|training_args|adapter_model|rng|rng_state|random_states)(_\d+)*"
)
"""Names of the files in which transformers' Trainer and accelerate have the state of a run, with numbers."""

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def weights_in(folder: Path, variant: str = "") -> Path:
    """The file, the index of shards or the folder of torch.distributed.checkpoint that holds a folder's weights.

    `variant`: as in `model.fp16.safetensors`.  Raises SourceError where there is none, or it cannot be told.
    """
    if (folder / METADATA).is_file():
        return folder
    names = [name.replace(".", f".{variant}.") if variant else name for name in _NAMES]
    for name, plain in zip(names, _NAMES, strict=True):
        index = f"{plain}.index.{variant}.json" if variant else f"{plain}.index.json"
        for place in (folder / name, folder / index, folder / f"{name}.index.json"):
            if place.is_file():
                _require_one_model(folder, plain)
                return place
    if variant:
        return _only_of_variant(folder, variant)
    for distributed in sorted(folder.glob(f"pytorch_model_fsdp_*/{METADATA}")):  # of accelerate
        return distributed.parent
    return _by_layout(folder) or _only_file(folder, names)


def has_variant(folder: Path, variant: str) -> bool:
    """Whether a folder has weights of a variant, as x.fp16.safetensors, x.fp16-00001-of-00002.safetensors."""
    return folder.is_dir() and bool(_of_variant(folder, variant))


def _of_variant(folder: Path, variant: str) -> list[Path]:
    return [file for file in _weight_files(folder) if re.search(rf"\.{re.escape(variant)}[.-]", file.name)]


def _only_of_variant(folder: Path, variant: str) -> Path:
    """The one file that has a variant in its name.  Raises SourceError where there is none, or several."""
    files = _of_variant(folder, variant)
    if len(files) == 1 and not _SHARD.search(files[0].stem):
        return files[0]
    if files:
        raise SourceError(f"the folder {folder} has several files of {variant}, such as {files[0].name}, without index")
    has = ", ".join(file.name for file in _weight_files(folder)[:3]) or "none"
    raise SourceError(f"the folder {folder} has no weights of the variant {variant}, but {has}: leave --variant out")


def _require_one_model(folder: Path, name: str) -> None:
    """Raise SourceError where accelerate has saved further models beside the first, as model_1.safetensors."""
    stem, _, suffix = name.partition(".")
    if others := sorted(folder.glob(f"{stem}_[1-9].{suffix}")):
        raise SourceError(
            f"the folder {folder} has the weights of several models ({name}, {others[0].name}); name one of these "
            "files with --checkpoint"
        )


def _by_layout(folder: Path) -> Path | None:
    """The file with the weights in a folder of DeepSpeed or Megatron; None for another.

    Raises SourceError where they are divided over files in an order that is not known.
    """
    for step in _steps(folder, "latest_universal", "{}"):
        if list(step.glob("zero/*/fp32.pt")):
            raise SourceError(
                f"{folder} is a universal checkpoint of DeepSpeed, with a file for each weight; give the one that it "
                "was made of"
            )
    for step in _steps(folder, "latest", "{}"):
        if len(states := sorted(step.glob("mp_rank_*_model_states.pt"))) == 1 and not list(step.glob("layer_*")):
            return states[0]
        if states or list(step.glob("*zero_pp_rank_*")):
            raise SourceError(
                f"{folder} is a checkpoint of DeepSpeed whose weights are divided over files; join them first: "
                f"python {folder / 'zero_to_fp32.py'} {folder} JOINED --safe_serialization"
            )
    for step in _steps(folder, "latest_checkpointed_iteration.txt", "iter_{:0>7}"):
        if (step / METADATA).is_file():
            return step
        ranks = sorted(step.glob("mp_rank_*/model_optim_rng.pt"))
        if len(ranks) == 1:
            return ranks[0]
        if ranks:
            raise SourceError(
                f"{folder} is a checkpoint of Megatron whose weights are divided over {len(ranks)} ranks; convert it "
                "first: python tools/checkpoint/convert.py --model-type GPT --loader core --saver hf "
                f"--load-dir {folder} --save-dir CONVERTED"
            )
    return None


def _steps(folder: Path, latest: str, named: str) -> Iterator[Path]:
    """The folder of the last step, if a file names it, and the folder itself, which may be that of a step."""
    if (folder / latest).is_file():
        yield folder / named.format((folder / latest).read_text().strip())
    yield folder


def _only_file(folder: Path, names: list[str]) -> Path:
    """The one file of weights in a folder, whatever its name, or the first of those of the ranks of a job."""
    files = _weight_files(folder)
    if len(files) != 1 and (known := other_folder(folder, files)):
        raise SourceError(f"{folder} {known}")
    shard = next((f for f in files if _SHARD.search(f.stem)), None)
    if (len(files) == 1 and shard is None) or is_of_one_job(files):
        return files[0]
    _refuse_files(folder, files, shard)
    _refuse_elsewhere(folder)
    without = "; fetch them, or plan without: --weights none" if (folder / "config.json").is_file() else ""
    raise SourceError(
        f"the folder {folder} is not a checkpoint: it has no {', '.join(names)} or index of shards{without}"
    )


def _refuse_files(folder: Path, files: Sequence[Path], shard: Path | None) -> None:
    """Raise SourceError for the files of a folder, if it has some that are not one checkpoint."""
    if broken := next(
        (f for f in sorted(folder.iterdir()) if f.is_symlink() and not f.exists() and _of_weights(f)), None
    ):
        raise SourceError(f"{broken} is a link to {broken.readlink()}, which is not here; fetch that")
    if variants := sorted({v for f in folder.iterdir() for v in _variant(f.name)}):
        raise SourceError(f"the folder {folder} has its weights as {', '.join(variants)}: say --variant {variants[0]}")
    if shard is not None:
        index = f"{_SHARD.sub('', shard.name)}.index.json"
        raise SourceError(f"the folder {folder} has shards, such as {shard.name}, without {index}; fetch that, too")
    if divided := next((f for f in files if _DIVIDED.match(f.name)), None):
        raise SourceError(
            f"the folder {folder} has a part of each tensor in files such as {divided.name}; save it with "
            "HuggingFaceStorageWriter(enable_consolidation=True)"
        )
    if files:
        listed = ", ".join(f.name for f in files[:5])
        raise SourceError(f"the folder {folder} has several files of weights ({listed}); name one with --checkpoint")


def _refuse_elsewhere(folder: Path) -> None:
    """Raise SourceError that says where the weights of a folder lie, if not in files of its own."""
    if packed := next(iter(sorted(folder.glob(f"*{SUFFIX}"))), None):
        raise SourceError(f"the folder {folder} has its weights in GGUF: give a file of them, such as {packed}")
    if foreign := next(filter(library_of, sorted(folder.iterdir())), None):
        require_own(foreign)
    if (folder / "adapter_config.json").is_file():
        raise SourceError(f"the folder {folder} has an adapter and no weights of a model: say --adapter {folder}")
    if within := sorted(_folders_within(folder), key=lambda found: (step_number(found.name), found)):
        if step_number(within[0].name) >= 0:
            raise SourceError(
                f"{folder} is the output of a training run; name a step in it, the newest is {within[-1]}"
            )
        listed = ", ".join(str(found.relative_to(folder)) for found in sorted(within)[:5])
        raise SourceError(
            f"the folder {folder} has weights in folders of its own ({listed}); name one with --checkpoint"
        )
    if foreign := next(filter(library_of, sorted(folder.glob("*/*"))), None):
        require_own(foreign)


def foreign_layout(folder: Path) -> str:
    """The kind of a folder of another program, and what to do; empty for one that is not known."""
    return other_folder(folder, _weight_files(folder)) if folder.is_dir() else ""


def _weight_files(folder: Path) -> list[Path]:
    """The files that have endings of torch's weights, but for the state of a training run."""
    return sorted(f for f in folder.iterdir() if f.suffix in WEIGHT_SUFFIXES and f.is_file() and _may_hold(f))


def _folders_within(folder: Path) -> set[Path]:
    """The folders below that have weights."""
    files = (file for pattern in ("*/*", "*/*/*") for file in folder.glob(pattern))
    return {f.parent for f in files if f.name == METADATA or (f.suffix in WEIGHT_SUFFIXES and _may_hold(f))}


def step_number(name: str) -> int:
    """The number at the end of the name of a training run's step; -1 where there is none."""
    number = re.search(r"\d+$", name)
    return int(number[0]) if number else -1


def _may_hold(file: Path) -> bool:
    """Whether a file may hold a model's weights: others hold the state of a training run."""
    return _OF_A_RUN.fullmatch(file.stem) is None


def _of_weights(file: Path) -> bool:
    """Whether the name of a file is that of weights, or of an index of their shards."""
    return (file.suffix in WEIGHT_SUFFIXES and _may_hold(file)) or file.name.endswith(".index.json")


def _variant(name: str) -> Iterator[str]:
    """The variant in the name of a file, such as fp16 in model.fp16.safetensors."""
    for plain in _NAMES:
        stem, _, suffix = plain.partition(".")
        if name.startswith(f"{stem}.") and name.endswith(f".{suffix}") and name != plain:
            yield name.removeprefix(f"{stem}.").removesuffix(f".{suffix}").partition("-")[0]
        elif name.startswith(f"{plain}.index.") and name.endswith(".json") and name != f"{plain}.index.json":
            yield name.removeprefix(f"{plain}.index.").removesuffix(".json")
