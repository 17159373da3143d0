"""Measures how fast a GPU trains and generates: steps of every method, compiled and as CUDA graphs; see prove_gpu.py."""

import gc
import signal
import statistics
import tempfile
import time
from contextlib import contextmanager
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from training_setup import Sizes, make_model, make_trainer, methods, windows
from transformers import TrainerCallback

from smt_hf.data import TokenCache
from smt_hf.models import layers_smt
from smt_hf.models.lean_smt_rnn import LeanStep

# Dense bf16 FLOP/s from the data sheets, by a part of the card's name.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}
NUM_WARM_UP = 3


class StepTimes(TrainerCallback):
    """Times every optimiser step, data and logs included, and ends the training when enough have been timed."""

    def __init__(self, trainer, num_steps: int, seconds: float):
        self.trainer, self.num_steps, self.seconds = trainer, num_steps, seconds
        self.times, self.transitions, self._count, self._last, self._begin = [], [], 0, None, None

    def on_step_end(self, args, state, control, **kwargs):
        synchronize(args.device.type)
        now, trained = time.perf_counter(), float(self.trainer._num_counted)
        if self._begin is None:
            self._begin = now
        if state.global_step > NUM_WARM_UP:
            self.times.append(now - self._last)
            self.transitions.append(trained - self._count)
        elif state.global_step == NUM_WARM_UP and args.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._last, self._count = now, trained
        enough = len(self.times) >= self.num_steps or (now - self._begin > self.seconds and len(self.times) >= 3)
        control.should_training_stop = control.should_training_stop or enough


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def release(device: str) -> None:
    """Frees what earlier measurements left behind."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_flops(name: str) -> float | None:
    """Dense bf16 FLOP/s from the card's data sheet."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def matrix_flops(device: str, size: int) -> float:
    """FLOP/s of a product of random matrices, the most that the device reaches: in bf16, or in float32 on a CPU."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(8):
        synchronize(device)
        begin = time.perf_counter()
        a @ b
        synchronize(device)
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(times[3:])


# ---- training steps --------------------------------------------------------------------------------------------------


def compile_cell(trainer) -> None:
    """Compiles the step of the student's recurrence, the part that is called most often."""
    torch._dynamo.reset()  # another trainer's graphs count against the limit of recompilations
    cell = trainer.student().model.cell
    cell.forward = torch.compile(cell.forward, dynamic=False)


def time_steps(kind, fields, sizes: Sizes, cache: TokenCache, device: str, seconds: float, prepare=None) -> dict:
    """Trains for some steps and returns the speed. If the windows do not fit into memory, halves their number until they do."""
    batch_size = fields.get("per_device_train_batch_size", sizes.batch_size)
    while True:
        try:
            return _time_steps(
                kind, {**fields, "per_device_train_batch_size": batch_size}, sizes, cache, device, seconds, prepare
            )
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
        release(device)


def _time_steps(kind, fields, sizes, cache, device, seconds, prepare) -> dict:
    release(device)
    with tempfile.TemporaryDirectory() as folder:
        options = {"bf16": True, "max_steps": 100_000, "dataloader_num_workers": 4 if device == "cuda" else 0}
        trainer = make_trainer(kind, make_model(sizes), windows(cache), device, folder, **{**options, **fields})
        if prepare is not None:
            prepare(trainer)
        timer = StepTimes(trainer, 15, seconds)
        trainer.add_callback(timer)
        begin = time.perf_counter()
        loss = trainer.train().training_loss
    args = trainer.args
    step = statistics.median(timer.times)
    tokens = args.bptt_horizon if getattr(args, "carry_memory", False) else args.context_length
    return {
        "batch_size": args.per_device_train_batch_size,
        "seconds": step,
        "seconds_mean": statistics.mean(timer.times),
        "all_seconds": [round(each, 5) for each in timer.times],
        "first_steps": round(time.perf_counter() - begin - sum(timer.times), 2),
        "tokens_per_second": args.per_device_train_batch_size * tokens / statistics.mean(timer.times),
        "transitions_per_second": sum(timer.transitions) / sum(timer.times),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "mean_loss": loss,
    }


def window_flops(kind, fields, sizes: Sizes, cache: TokenCache) -> float:
    """FLOPs of a training step for one window, counted on a CPU and averaged over a few draws."""
    factor = 1
    num_draws = 1 if kind == "bptt" or fields.get("rollout") == "sequential" else 4
    if kind == "bptt":  # every step of the recurrence costs the same; recomputation does not count
        factor = fields.get("bptt_horizon", fields["context_length"])
        fields = {"context_length": 1}
    fields = {**fields, "per_device_train_batch_size": 1}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(kind, make_model(sizes), windows(cache), "cpu", folder, **fields)
        trainer.model.train()
        inputs = trainer.data_collator([trainer.train_dataset[0]])
        total = 0
        for draw in range(num_draws):
            step = trainer.make_step(inputs, (0, draw))
            with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
                trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
            total += counted.get_total_flops()
            trainer.model.zero_grad()
    return total / num_draws * factor


# ---- kernels of the teacher's attention --------------------------------------------------------------------------------


@contextmanager
def masked_kernels(backends: list[SDPBackend]):
    """Uses other sdpa kernels for attention with a mask."""
    kept, layers_smt.MASKED_KERNELS = layers_smt.MASKED_KERNELS, backends
    try:
        yield
    finally:
        layers_smt.MASKED_KERNELS = kept


@contextmanager
def time_limit(seconds: float):
    """Raises a TimeoutError after `seconds`, since a compilation has no time limit of its own."""

    def stop(*_):
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def use_flex(trainer) -> None:
    """Computes the teacher's attention with flex attention, whose masks know which blocks are empty."""
    trainer.teacher_model().set_attn_implementation("flex_attention")


def time_attention(sizes: Sizes, cache: TokenCache, device: str, seconds: float, save, left) -> dict:
    """Times steps of SMT with sdpa as the library calls it, with cuDNN among its kernels, and with flex attention."""
    planned = [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    smt = {name: each for name, each in methods(sizes).items() if each[0] == "smt"}
    variants = [(name, label) for label in ("sdpa", "sdpa with cuDNN") for name in smt]
    variants.append((next(iter(smt)), "flex attention"))
    found = {}
    for name, label in variants:
        key, limit = f"{name}, {label}", min(45 if "flex" in label else 40, left() - 10)
        if limit < 10 or (label == "flex attention" and device == "cpu"):
            found[key] = {"skipped": "no time left" if limit < 10 else "on a CPU flex attention has no gradient"}
            continue
        prepare = use_flex if label == "flex attention" else None
        kernels = planned if "cuDNN" in label else layers_smt.MASKED_KERNELS
        try:
            with time_limit(limit), masked_kernels(kernels):
                found[key] = time_steps(*smt[name], sizes, cache, device, seconds, prepare)
        except Exception as error:
            found[key] = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
        release(device)
        save(found)
    return found


# ---- a training step as one CUDA graph -------------------------------------------------------------------------------


class GraphedStep:
    """The forward and backward pass of one step, captured as a CUDA graph. A replay costs no Python and no kernel launches.

    The plan, and hence every shape, stays the same; the tokens are copied in.

    Args:
        trainer: a trainer on a GPU, whose loss is computed; nothing in its step may wait for the host.
        input_ids: `(B, T)`, on the GPU.
        autocast: whether to use bf16 autocast.
    """

    def __init__(self, trainer, input_ids: torch.Tensor, autocast: bool = True):
        self.trainer, self.autocast, self.input_ids = trainer, autocast, input_ids.clone()
        for module in trainer.model.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                module._gradient_checkpointing_func = partial(
                    checkpoint, use_reentrant=False, preserve_rng_state=False
                )
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                loss = self._run()
        torch.cuda.current_stream().wait_stream(stream)
        self.eager_loss = float(loss)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self._run()

    def _run(self) -> torch.Tensor:
        self.trainer.model.zero_grad(set_to_none=True)
        step = self.trainer.make_step({"input_ids": self.input_ids}, (0, 0))
        with torch.autocast("cuda", torch.bfloat16, enabled=self.autocast):
            loss = self.trainer.mean_loss(self.trainer.losses(self.trainer.model, step)[0])
        loss.backward()
        return loss.detach()

    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        self.input_ids.copy_(input_ids)
        self.graph.replay()
        return self.loss


def time_graphed_step(fields, sizes: Sizes, cache: TokenCache, compiled: bool, num_steps: int) -> dict:
    """Times a step of BPTT within windows as one CUDA graph, with fused AdamW, and compares its loss with the step without one."""
    release("cuda")
    fields = {name: value for name, value in fields.items() if name != "carry_memory"}
    fields |= {"train_start": False, "per_device_train_batch_size": sizes.batch_size}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer("bptt", make_model(sizes), windows(cache), "cuda", folder, **fields)
        trainer.model.train()
        if compiled:
            compile_cell(trainer)
        length = trainer.args.context_length + 1
        batches = [
            torch.stack([trainer.train_dataset[row + i]["input_ids"] for row in range(sizes.batch_size)]).cuda()
            for i in range(4)
        ]
        assert batches[0].shape[1] == length
        optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)
        begin = time.perf_counter()
        step = GraphedStep(trainer, batches[0])
        captured = time.perf_counter() - begin
        eager = step.eager_loss
        replayed = float(step(batches[0]))
        assert abs(replayed / eager - 1) < 1e-2, (replayed, eager)
        times = []
        for i in range(num_steps):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            step(batches[i % 4])
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
            optimizer.step()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    seconds = statistics.median(times[2:])
    return {
        "batch_size": sizes.batch_size,
        "seconds": seconds,
        "capture_seconds": captured,
        "tokens_per_second": sizes.batch_size * (length - 1) / seconds,
        "transitions_per_second": sizes.batch_size * (length - 1) / seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "loss_apart": abs(replayed / eager - 1),
    }


# ---- generation ------------------------------------------------------------------------------------------------------


def time_generation(sizes: Sizes, device: str, num_tokens: int) -> dict:
    """Tokens per second of `generate()`, and of the bare step with and without a CUDA graph, at several batch sizes."""
    release(device)
    student = make_model(sizes).export_student().eval().to(device)
    found = {}
    for rows in sizes.generation_batches:
        prompts = torch.randint(256, (rows, 8), device=device)
        options = {"do_sample": True, "pad_token_id": 0, "eos_token_id": None}
        student.generate(prompts, max_new_tokens=4, **options)
        synchronize(device)
        begin = time.perf_counter()
        student.generate(prompts, max_new_tokens=num_tokens, **options)
        synchronize(device)
        entry = {"generate": rows * num_tokens / (time.perf_counter() - begin)}
        entry |= _time_bare_step(student, rows, device, num_tokens)
        found[str(rows)] = entry
    return found


@torch.no_grad()
def _time_bare_step(student, rows: int, device: str, num_tokens: int) -> dict:
    """Times greedy steps on static tensors, and checks that a CUDA graph of the step gives the same tokens."""
    lean = LeanStep(student)
    start = student.model.start_memory(rows).contiguous()
    memory, tokens = start.clone(), torch.zeros(rows, dtype=torch.long, device=device)

    def step():
        memory.copy_(lean.update(memory, tokens))
        tokens.copy_(lean.readout(memory).argmax(dim=-1))

    def run(call) -> tuple[float, torch.Tensor]:
        memory.copy_(start)
        tokens.zero_()
        written = []
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(num_tokens):
            call()
            written.append(tokens.clone())
        synchronize(device)
        return rows * num_tokens / (time.perf_counter() - begin), torch.stack(written)

    run(step)
    speed, written = run(step)
    if device != "cuda":
        return {"step": speed}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graphed, again = run(graph.replay)
    return {"step": speed, "graph": graphed, "graph_equal": bool(torch.equal(written, again))}


def time_methods(sizes, cache, device, seconds, save, left, prepare=None, only=None) -> dict:
    """Runs [`time_steps`] for every method while there is time left, saving the results one by one."""
    found = {}
    for name, (kind, fields) in methods(sizes).items():
        if only is not None and not any(part in name for part in only):
            continue
        if left() < 3 * seconds:
            found[name] = {"skipped": "no time left"}
            continue
        try:
            found[name] = time_steps(kind, fields, sizes, cache, device, seconds, prepare)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
        release(device)
        save(found)
    return found
