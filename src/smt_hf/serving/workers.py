"""Several processes behind one port: each has its own engine, and the kernel assigns each connection to one of them."""

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait

from prometheus_client.multiprocess import mark_process_dead

from ..errors import InputError, explain
from .server import SECONDS_TO_FINISH, SECONDS_TO_STOP

logger = logging.getLogger(__name__)

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client's processes share their numbers
LOOK_SECONDS = 0.25  # between two checks of the workers


class Worker:
    """A process that runs `work(report)`; see [`run_workers`]."""

    def __init__(self, work: Callable[[Callable[[], None]], None]):
        # A forked process would count on torch's threads, which do not exist in it.
        context = multiprocessing.get_context("spawn")
        self.told, tells = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(work, tells))
        self.process.start()
        tells.close()
        self.is_ready = False

    def has_ended(self) -> bool:
        """Reads the worker's report, and returns whether it has ended.

        Raises:
            InputError: if it could not start.
        """
        try:
            said = self.told.recv()
        except EOFError:
            self.process.join()
            if not self.is_ready:
                raise InputError(f"a worker ended with exit code {self.process.exitcode} while it started") from None
            return True
        if said is not None:
            raise InputError(said)
        self.is_ready = True
        return False


def run_workers(work: Callable[[Callable[[], None]], None], count: int, ready: Callable[[], None]) -> None:
    """Keeps processes running until SIGTERM or SIGINT, which all of them receive. A process that dies is replaced.

    Args:
        work: the function that each process runs; must be picklable. It is given a function to call when the process is ready.
        count: number of processes.
        ready: called when all processes are ready for the first time.

    Raises:
        InputError: if a worker cannot start; carries its message.
    """
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="smt_hf_metrics_") as folder:
        elsewhere = os.environ.get(METRICS_FOLDER)
        os.environ[METRICS_FOLDER] = folder
        try:
            workers += [Worker(work) for _ in range(count)]
            waits = True
            while not stop.is_set():
                _look_after(workers, work, folder)
                if waits and all(worker.is_ready for worker in workers):
                    waits = False
                    ready()
        finally:
            _end(workers)
            if elsewhere is None:
                del os.environ[METRICS_FOLDER]
            else:
                os.environ[METRICS_FOLDER] = elsewhere
            for number, handler in before.items():
                signal.signal(number, handler)


def _look_after(workers: list[Worker], work, folder: str) -> None:
    speaking = wait([worker.told for worker in workers], LOOK_SECONDS)
    for place, worker in enumerate(workers):
        if worker.told in speaking and worker.has_ended():
            pid, code = worker.process.pid, worker.process.exitcode
            logger.warning("worker %d ended with exit code %s: another takes its place", pid, code)
            mark_process_dead(pid, folder)
            workers[place] = Worker(work)


def _end(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + SECONDS_TO_FINISH + SECONDS_TO_STOP
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _run(work, tells) -> None:
    """Runs a worker. Ctrl-C reaches it too, but only the parent acts on it until the server has its own handler."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(lambda: tells.send(None))
    except Exception as error:
        logger.debug("a worker failed", exc_info=True)
        tells.send(explain(error))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
