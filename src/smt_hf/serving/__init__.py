"""One student behind an OpenAI-style HTTP interface, built on the engine.

Needs the extra: `pip install 'smt-hf[serve]'`.
"""
