"""A thread that compiles kernels one after the other, while what needs them goes on without."""

from threading import Lock, Thread, main_thread


class Background:
    """Work that a thread does in the order in which it is asked for.  The thread ends where nothing is left.

    When Python ends, it waits for what is done at that moment, and leaves out the rest.
    """

    def __init__(self):
        self._lock, self._asked, self._thread = Lock(), {}, None

    def ask(self, key, work):
        """Have `work` be called, unless what was asked for under the same key is still to be done.

        Raises RuntimeError where no thread can be started; the next one that is started does the work.
        """
        with self._lock:
            self._asked.setdefault(key, work)
            if self._thread is None or not self._thread.is_alive():  # in a fork, no thread of its parent is
                thread = Thread(target=self._run, name="kernels")
                thread.start()
                self._thread = thread

    def is_done(self):
        """Whether no thread does what was asked for: `finish` would return at once."""
        with self._lock:  # which another thread that asks holds until its thread has begun
            return self._thread is None or not self._thread.is_alive()

    def finish(self):
        """Wait until all is done that was asked for."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self):
        while True:
            with self._lock:
                key = next(iter(self._asked), None)
                if key is None or not main_thread().is_alive():
                    self._asked.clear()
                    self._thread = None
                    return
            try:
                self._asked[key]()
            finally:
                with self._lock:
                    del self._asked[key]
