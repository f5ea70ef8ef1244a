"""`python -m taskhub` is `taskhub-server`."""

from __future__ import annotations

import sys

from taskhub.cli import main

sys.exit(main())
