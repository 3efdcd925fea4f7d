import gc
import signal
import sys

from lib.pruning.on_disk import main

# A sixth of the time of a small run: importing torch makes much that is looked through for
# garbage, and there is none.
gc.disable()
signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as Ctrl-C does
sys.exit(main())
