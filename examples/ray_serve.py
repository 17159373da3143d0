"""A student on Ray Serve, for those who outgrow one machine: replicas that hand conversations on to each other by their memory.

    pip install 'smt-hf[serve]' 'ray[serve]'
    export SMT_HF_MODEL=/shared/student SMT_HF_MEMORY_KEY=a-long-secret SMT_HF_REPLICAS=4
    serve run ray_serve:app

Every replica is the application of `smt-hf serve`, with an engine of its own; Ray starts them where there is room, gives each request
to one that has little to do, and replaces those that die. A client that asks for `"return_memory": true` sends the memory and its new words
next time, to whichever replica. `SMT_HF_MODEL` is a Hub id, or a folder that every machine sees.
"""

import os

from ray import serve

SETTINGS = {name: os.environ[name] for name in ("SMT_HF_MODEL", "SMT_HF_MEMORY_KEY")}
SETTINGS |= {"SMT_HF_API_KEY": os.environ.get("SMT_HF_API_KEY", ""), "OMP_NUM_THREADS": "1"}


def student_app():
    """The application of a replica, made where it runs; the name of its model is that of the folder."""
    from smt_hf.checkpoints import load_student
    from smt_hf.data import load_tokenizer
    from smt_hf.serving.server import ServerOptions, make_app

    model = os.environ["SMT_HF_MODEL"]
    student, tokenizer = load_student(model).eval().requires_grad_(False), load_tokenizer(model)
    options = ServerOptions(
        memory_key=os.environ["SMT_HF_MEMORY_KEY"].encode(), api_key=os.environ["SMT_HF_API_KEY"] or None
    )
    return make_app(student, tokenizer, model, options)


student = serve.deployment(
    serve.ingress(student_app)(),
    name="student",
    num_replicas=int(os.environ.get("SMT_HF_REPLICAS", "2")),
    max_ongoing_requests=256,  # which an engine steps together
    ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": SETTINGS}},
)
app = student.bind()
