"""`smt-hf app`: write or draw with a student in the browser."""

import importlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ..checkpoints import check_vocabulary, load_student
from ..data import load_processing
from ..errors import InputError, Interrupted
from ..images import check_processor
from ..models import SmtImageProcessor
from .parsing import Command, parse


@dataclass
class AppOptions:
    """Which student writes or draws, and where the app is served."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to serve at; 0.0.0.0 lets other machines use the app."}
    )
    port: int = field(default=7860, metadata={"help": "Port to serve at."})


COMMAND = Command(
    name="app",
    kinds=[AppOptions],
    description="Write with a trained student in the browser, or draw with one trained on images, and watch its memory, which never grows.",
    example="""example:
  smt-hf app runs/demo/dmt
  smt-hf app runs/digits/bptt""",
    positionals=["model"],
    required={"model": "the folder or Hub id of a student"},
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    (options,) = parse(COMMAND, argv)
    interface = load_interface()
    check_address(options.host, options.port)
    student, processing = load_student(options.model).eval(), load_processing(options.model)
    draws = isinstance(processing, SmtImageProcessor)
    (check_processor if draws else check_vocabulary)(student, processing)
    build = interface.build_image_app if draws else interface.build_app
    place = os.environ.get("GRADIO_TEMP_DIR")
    if place is not None:
        Path(place).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="smt_hf-", dir=place) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # for what visitors upload; removed when the app ends
        serve(interface, build(student, processing), options)


def serve(interface, app, options: AppOptions) -> None:
    """Runs the app until a signal ends it."""
    _, url, _ = app.launch(
        server_name=options.host,
        server_port=options.port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        max_file_size="16mb",
        ssr_mode=False,
        theme=interface.theme(),
        css=interface.CSS + interface.PAD_CSS,
    )
    # An open page keeps its connections: `close` ends its heartbeat, which gradio's own `block_thread` waits for. A text that
    # is still being written is cut off after this many seconds.
    app.server.config.timeout_graceful_shutdown = 3
    print(f"The app is at {url} (Ctrl+C ends it).", flush=True)
    try:
        while True:
            time.sleep(1)  # a signal interrupts it on every system
    except (KeyboardInterrupt, Interrupted):
        pass
    finally:
        app.close(verbose=False)


def load_interface():
    """Imports the interface, with gradio's telemetry and its record of what visitors do turned off.

    Raises:
        InputError: if gradio is missing.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
    try:
        return importlib.import_module("..app", __package__)
    except ImportError as error:
        raise InputError(f"the app needs gradio ({error}): pip install 'smt-hf[app]'") from error


def check_address(host: str, port: int) -> None:
    """Checks that the app can be served at this address.

    Raises:
        InputError: naming what is wrong with the host or the port.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"port={port} is not valid: pass a number from 1 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise InputError(f"host={host!r} is not an address ({error.strerror}): pass 127.0.0.1 or 0.0.0.0") from error
    except OSError as error:
        raise InputError(
            f"cannot serve at host={host!r}, port={port} ({error.strerror}): choose another --port, or --host 127.0.0.1"
        ) from error
