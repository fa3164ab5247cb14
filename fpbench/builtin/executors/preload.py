"""What the process that workers are forked from loads first: before torch, which takes seconds."""

from __future__ import annotations

import atexit
import os
import signal

# Ctrl-C in a terminal reaches this process too, and would be told by a traceback from the midst of
# an import. It ends silently instead, at once; the run that it is for was told as well.
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

# Its end is that of its run: without taking torch's modules down one by one. No worker does this.
atexit.register(os._exit, 0)
