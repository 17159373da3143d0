"""Measures how much of its backbone a teacher's memories keep: the next token read from them, and the future decoded from them.

python scripts/teacher_quality.py runs/teacher --dataset held_out.txt [--split validation --holdout 20] [--horizon 32]

Both are measured on the same tokens of held-out windows, in nats per token, next to the backbone's own loss on them.
"""

import argparse

import torch
import torch.nn.functional as F

from smt_hf.checkpoints import load_joint
from smt_hf.data import TokenWindows, load_processing
from smt_hf.data.build import TextOptions
from smt_hf.data.images import ImageRows
from smt_hf.models.backbone_smt import read_backbone
from smt_hf.models.image_processing_smt import SmtImageProcessor


def rows(arguments, processing) -> tuple[torch.Tensor, torch.Tensor]:
    """Held-out windows or images, spread evenly over the data, and their documents, `(N, T)` each."""
    options = {"dataset": arguments.dataset, "split": arguments.split, "holdout": arguments.holdout}
    cache = TextOptions(**options, cache_dir=arguments.cache_dir).tokens(processing)
    if isinstance(processing, SmtImageProcessor):
        data = ImageRows(cache)
    else:
        data = TokenWindows(cache, arguments.context_length, random_offset=False)
    number = min(arguments.num_windows, len(data))
    items = [data[place * len(data) // number] for place in range(number)]
    ids = torch.stack([item["input_ids"] for item in items])
    return ids, torch.stack([item.get("documents", torch.zeros_like(item["input_ids"])) for item in items])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--holdout", type=int)
    parser.add_argument("--cache_dir")
    parser.add_argument("--num_windows", type=int, default=128)
    parser.add_argument("--context_length", type=int, default=256, help="tokens of a window of text")
    parser.add_argument("--horizon", type=int, default=32, help="tokens decoded from one memory")
    parser.add_argument("--stride", type=int, default=7, help="distance between the encoded positions of a window")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    teacher, processing = load_joint(arguments.model).teacher.eval(), load_processing(arguments.model)
    if teacher.backbone is None:
        parser.error(f"the teacher in {arguments.model!r} has no backbone")
    sums = dict.fromkeys(("readout", "backbone there", "future", "backbone over the future"), 0.0)
    counts = dict.fromkeys(sums, 0)

    def add(name, losses, counted):
        sums[name] += (losses * counted).sum().item()
        counts[name] += counted.sum().item()

    batches = (part.split(8) for part in rows(arguments, processing))
    for ids, documents in zip(*batches, strict=True):
        length = ids.shape[1]
        logits = read_backbone(teacher.backbone, ids, documents, logits=True).logits
        backbone = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")  # of token t + 1
        inside = (documents[:, 1:] == documents[:, :-1]).float()
        positions = torch.arange(0, length - 1, arguments.stride)
        memory = torch.cat([teacher.encode(ids, some, documents=documents) for some in positions.split(64)], dim=1)
        read = F.cross_entropy(teacher.readout(memory).transpose(1, 2), ids[:, positions + 1], reduction="none")
        add("readout", read, inside[:, positions])
        add("backbone there", backbone[:, positions], inside[:, positions])
        chosen = (positions + arguments.horizon < length).nonzero()[
            :: max(arguments.horizon // arguments.stride, 1), 0
        ]
        columns = positions[chosen, None] + torch.arange(1, arguments.horizon + 1)
        future = ids[:, columns]
        decoded = teacher.decode(memory[:, chosen].flatten(0, 1), future.flatten(0, 1)).unflatten(0, future.shape[:2])
        losses = F.cross_entropy(decoded.movedim(-1, 1), future, reduction="none")
        same = (documents[:, columns] == documents[:, positions[chosen], None]).float()
        add("future", losses, same)
        add("backbone over the future", backbone[:, columns - 1], same)
    loss = {name: sums[name] / counts[name] for name in sums}
    for name, other in (("readout", "backbone there"), ("future", "backbone over the future")):
        more = loss[name] / loss[other] - 1
        print(f"{name}: {loss[name]:.4f} nats per token; {other}: {loss[other]:.4f} ({more:+.1%})")


if __name__ == "__main__":
    main()
