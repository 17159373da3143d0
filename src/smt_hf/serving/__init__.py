"""One student behind an OpenAI-style HTTP interface, with the request handlers of `transformers serve`.

The modules but `requests` and `stops` need the extra: `pip install 'smt-hf[serve]'`.
"""
