"""Two processes that share out one student's weights: run by `test_sharding.py` with torchrun."""

import copy
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from smt_hf import SmtMemory, SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.models import fingerprint_smt_rnn
from smt_hf.models.cache_smt_rnn import CACHE_NAME

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))
torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_memory_tokens": 3, "num_updater_layers": 2, "num_readout_layers": 1}
whole = SmtRnnForCausalLM(SmtRnnConfig(vocab_size=20, num_attention_heads=4, initializer_range=0.3, **sizes)).eval()
tokens = torch.randint(20, (2, 8), generator=torch.Generator().manual_seed(1))
memory = SmtMemory.from_pretrained(sys.argv[1])
assert memory.fingerprint == fingerprint_smt_rnn.fingerprint(whole)

calls, probe = [], fingerprint_smt_rnn.probe
fingerprint_smt_rnn.probe = lambda student: calls.append(student) or probe(student)
options = {"do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True}
for dtype in (torch.float32, torch.bfloat16):
    student = copy.deepcopy(whole)
    policy = MixedPrecisionPolicy(param_dtype=dtype)
    for part in (*student.model.cell.transformer.layers, *student.model.decoder.layers, student):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)

    read = student.read(tokens)
    assert fingerprint_smt_rnn.same_student(read.fingerprint, memory.fingerprint)
    calls.clear()
    for _ in range(4):
        student.generate(memory=memory, max_new_tokens=2, **options)
    assert len(calls) <= 1  # once more where the weights lie elsewhere after a first pass
    if dtype == torch.float32:
        torch.testing.assert_close(read.states, memory.states)
        # each process writes for itself, and waits for the other, which ends later
        mine, mask = tokens[rank : rank + 1], torch.ones(1, 8)
        written = whole.generate(mine, attention_mask=mask, max_new_tokens=12, eos_token_id=None, **options).sequences
        ends = {"eos_token_id": written[0, 8 + (2, 8)[rank]].item(), "max_new_tokens": 12, **options}
        alone = whole.generate(mine, attention_mask=mask, **ends)
        beside = student.generate(mine, attention_mask=mask, **ends)
        assert beside.sequences.equal(alone.sequences)
        assert beside[CACHE_NAME].get_seq_length() == alone[CACHE_NAME].get_seq_length()
        torch.testing.assert_close(beside[CACHE_NAME].memory, alone[CACHE_NAME].memory)

    student.train()
    student(tokens, labels=tokens).loss.backward()
    optimizer.step()
    assert not fingerprint_smt_rnn.same_student(fingerprint_smt_rnn.fingerprint(student.eval()), memory.fingerprint)
dist.destroy_process_group()
print("sharded")
