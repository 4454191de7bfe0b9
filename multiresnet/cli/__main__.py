"""`python -m multiresnet.cli`."""

import sys

from multiresnet.cli import main

sys.exit(main())
