"""The first import of the process that workers are forked from, before torch, which is slow."""

from __future__ import annotations

import atexit
import os
import signal

# Ctrl-C in a terminal reaches this process too, and would print a traceback from within an import.
# It ends this process silently instead; the run gets the signal as well.
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

# It ends with its run, without tearing down torch's modules one by one. Workers do not do this.
atexit.register(os._exit, 0)
