"""Students whose choices depend on all that they have read, and end tokens that come up."""

import pytest
import torch

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.data import byte_tokenizer


@pytest.fixture(scope="session")
def writer():
    """A student of bytes whose weights are large enough for every token to matter, and exact enough for rounding not to."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "num_memory_tokens": 3, "num_updater_layers": 2, "num_readout_layers": 1}
    config = SmtRnnConfig(
        vocab_size=258, num_attention_heads=2, initializer_range=0.3, pad_token_id=257, eos_token_id=256, **sizes
    )
    return SmtRnnForCausalLM(config).double().eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


def alone(student, prompt, **options):
    """What `generate()` writes after one prompt."""
    ids = torch.tensor([prompt])
    torch.manual_seed(options.pop("seed", 0))
    sampling = {"do_sample": True, "top_k": 0, **options} if "temperature" in options else options
    sequences = student.generate(ids, attention_mask=torch.ones_like(ids), **{"do_sample": False, **sampling})
    return sequences[0, len(prompt) :].tolist()
