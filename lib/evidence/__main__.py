import signal
import sys

from lib.evidence.merging import main

signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `list … | head` ends without a traceback
sys.exit(main())
