"""One student behind an OpenAI-style HTTP interface: a front door of the engine.

Needs the extra: `pip install 'smt-hf[serve]'`.
"""
