"""Fingerprints, which tell which student a memory belongs to from what the student computes, not from its weights' bytes.

The student reads a fixed set of tokens. Its memories and predictions after them, projected onto a few numbers, are its
fingerprint. Rounded, offloaded or sharded weights give nearly the same numbers; a different student gives different ones.
"""

import base64
import hashlib
import re

import numpy as np
import torch

VERSION = "1"  # changes whenever the same student would get other numbers
# Many short sequences rather than a long one: the recurrence may amplify rounding from step to step.
ROWS, STEPS = 64, 2

# The largest relative difference allowed between two fingerprints of one student, by the coarser precision of the two. Measured on
# trained students of every cell: 1e-6, 0.001, 0.012, 0.055 and 0.12. One step of fine-tuning at 1e-4 gives 0.02 to 0.06, an
# adapter with random weights 0.3 to 0.9, other initial weights 1.4.
TOLERANCES = {"float32": 1e-4, "float16": 0.005, "bfloat16": 0.03, "8-bit": 0.12, "4-bit": 0.2}

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_QUANTIZED = re.compile(r"quant|bitsandbytes|torchao|hqq|gptq|awq", re.IGNORECASE)  # paths of classes
_EIGHT_BITS = re.compile(r"(?<!to)(?<!u)(int|float|fp)8|8bit|qbytes|torch\.ao\.nn\.quantized", re.IGNORECASE)


def fingerprint(student) -> str:
    """The fingerprint of a student as text; compare two of them with [`same_student`].

    It is cached and recomputed only when weights or adapters have changed. In a distributed run, every process must call it.
    """
    key = _state_of(student)
    known = student.__dict__.get("_fingerprint")
    if known is None or known[0] != key:
        known = student._fingerprint = (key, _compute(student))
    return known[1]


def difference(one: str, other: str) -> tuple[float, float]:
    """The relative root mean square difference of two fingerprints, and the largest value allowed for one student.

    Memories and logits are compared separately; the larger difference counts.

    Raises:
        ValueError: if either is not a fingerprint, or has an earlier version.
    """
    (precision, numbers), (other_precision, other_numbers) = _decode(one), _decode(other)
    apart = np.square(numbers - other_numbers).mean(axis=1)
    size = (np.square(numbers).mean(axis=1) + np.square(other_numbers).mean(axis=1)) / 2
    with np.errstate(invalid="ignore"):
        relative = np.sqrt(apart / np.maximum(size, np.finfo(np.float64).tiny)).max()
    return float(relative), max(TOLERANCES[precision], TOLERANCES[other_precision])


def same_student(one: str, other: str) -> bool:
    """Whether two fingerprints belong to the same student, in any precision.

    Raises:
        ValueError: if either is not a fingerprint, or has an earlier version.
    """
    relative, tolerance = difference(one, other)
    return relative <= tolerance


def short(fingerprint: str) -> str:
    """Eight characters that stand for a fingerprint in messages."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:8]


@torch.no_grad()
def _compute(student) -> str:
    device = student.device
    if device.type == "meta":  # offloaded weights, which compute on an accelerator if there is one
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
    with torch.autocast(device.type, enabled=False):
        memories, logits = probe(student)
        precision = precision_of(student, memories, logits)
    logits = logits.double() - logits.double().mean(dim=-1, keepdim=True)  # a constant shift changes no prediction
    numbers = np.stack([_project(b"smt memories", memories.double()), _project(b"smt logits", logits)])
    return f"{VERSION}:{precision}:{base64.b64encode(numbers.astype('<f4').tobytes()).decode()}"


def probe(student) -> tuple[torch.Tensor, torch.Tensor]:
    """A student's memories `(ROWS, STEPS, K, D)` and logits `(ROWS, STEPS, V)` after fixed tokens.

    The tokens come from a hash, so they are the same everywhere. The student runs as a whole, so that the hooks of
    offloaded and sharded weights work, and without dropout; its training modes are restored afterwards.
    """
    device = student.device if student.device.type != "meta" else torch.device("cpu")  # hooks move the ids
    draws = np.frombuffer(hashlib.shake_256(b"smt tokens").digest(4 * ROWS * STEPS), dtype="<u4").astype(np.int64)
    input_ids = torch.from_numpy(draws % student.config.vocab_size).view(ROWS, STEPS).to(device)
    training = [module for module in student.modules() if module.training]
    try:
        for module in training:
            module.training = False
        output = student(input_ids, use_cache=False, output_memory=True, output_hidden_states=False, return_dict=True)
    finally:
        for module in training:
            module.training = True
    return output.memory, output.logits


def _project(name: bytes, values: torch.Tensor) -> np.ndarray:
    """The sum of each row of `(ROWS, STEPS, ...)` with random signs, which preserve its norm on average: `(ROWS,)`."""
    rows = values.flatten(1).cpu().numpy()
    digest = hashlib.shake_256(name).digest(-(-rows.size // 8))
    signs = np.unpackbits(np.frombuffer(digest, dtype=np.uint8), count=rows.size).reshape(rows.shape)
    return np.where(signs, rows, -rows).sum(axis=1)


def precision_of(student, *results: torch.Tensor) -> str:
    """The coarsest precision among a student's weights and results, a key of `TOLERANCES`."""
    found = {_products(student), *map(_precision, results)}
    for module in student.modules():
        weights = list(module.parameters(recurse=False))
        text = " ".join([_path(module), *(f"{_path(weight)} {weight.dtype}" for weight in weights)])
        if _QUANTIZED.search(text) or any(weight.dtype not in _FLOATS for weight in weights):
            found.add("8-bit" if _EIGHT_BITS.search(text) else "4-bit")  # anything not known to be 8-bit
        else:
            found |= {_precision(weight, is_weight=True) for weight in weights}
    return max(found, key=list(TOLERANCES).index)


def _precision(tensor: torch.Tensor, is_weight: bool = False) -> str:
    """The precision of some numbers, which may have been rounded before they were stored in their dtype."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return "float32"
    numbers = getattr(tensor, "_local_tensor", tensor).detach().flatten()[:4096]  # of a sharded tensor, the local part
    numbers = numbers[numbers != 0][:256]
    if len(numbers.unique()) > 8:  # fewer values may be ones and halves, which are exact in every dtype
        for dtype in (torch.bfloat16, torch.float16):
            if numbers.to(dtype).to(numbers.dtype).equal(numbers):
                return str(dtype).removeprefix("torch.")
    if is_weight and tensor.ndim > 1 and len(numbers) == 256:
        neighbours = numbers.abs().view(-1, 32).sort(dim=1).values
        share = (neighbours.diff(dim=1) == 0).double().mean()  # of equal neighbours, which only rounding creates
        return "4-bit" if share > 0.5 else "8-bit" if share > 0.02 else "float32"
    return "float32"


def _products(student) -> str:
    """The precision of float32 matrix products on the student's device: TF32 and the like round the factors."""
    if student.device.type == "meta":
        return "float32"
    factor = torch.full((64, 64), 1 + 2.0**-9 + 2.0**-14, device=student.device)
    error = (factor @ torch.eye(64, device=student.device) - factor).abs().max()
    return "float32" if error == 0 else "float16" if error < 2.0**-11 else "bfloat16"


def _path(item) -> str:
    return f"{type(item).__module__}.{type(item).__qualname__}"


def _state_of(student) -> list:
    """A value that changes when weights or adapters do, without running the student.

    The sums notice writes that bypass autograd, as in `parameter.data`. Offloaded weights are stored elsewhere, and each call
    sees new stand-ins for them, so only their dtype, device and shape are compared.
    """
    tensors = [*student.parameters(), *student.buffers()]
    state = [(tensor.dtype, tensor.device, tensor.shape) for tensor in tensors]
    state += [0 if tensor.is_meta or tensor.is_inference() else tensor._version for tensor in tensors]
    plain = [tensor for tensor in tensors if type(tensor) in (torch.Tensor, torch.nn.Parameter) and not tensor.is_meta]
    sums = [tensor.detach().sum(dtype=torch.float32) for tensor in plain if tensor.dtype in _FLOATS]
    state += torch.stack([number.to(sums[0].device) for number in sums]).tolist() if sums else []
    for module in student.modules():
        if hasattr(module, "_active_adapter"):  # a layer that PEFT has wrapped
            adapters = (module.active_adapters, getattr(module, "merged_adapters", None), module.disable_adapters)
            state.append(repr((adapters, getattr(module, "scaling", None))))
    return state


def _decode(fingerprint: str) -> tuple[str, np.ndarray]:
    """The precision, and the numbers `(2, ROWS)`."""
    try:
        version, precision, numbers = fingerprint.split(":")
        if version != VERSION or precision not in TOLERANCES:
            raise ValueError
        numbers = np.frombuffer(base64.b64decode(numbers), dtype="<f4").astype(np.float64)
        return precision, numbers.reshape(2, ROWS)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"the fingerprint {str(fingerprint)[:16]!r} is damaged or from an earlier version: read the text again"
        ) from error
