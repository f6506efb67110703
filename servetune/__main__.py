"""`python -m servetune`: the same as the console script."""

import sys

from servetune.cli.main import main

sys.exit(main())
