"""python -m cpubn"""

import sys

from cpubn.cli import main

sys.exit(main())
