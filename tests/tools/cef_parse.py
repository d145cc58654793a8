"""Parses lines of CEF on standard input with PyPI's pycef; prints what it found, one JSON object per line."""

import json
import sys

import pycef

for line in sys.stdin:
    print(json.dumps(pycef.parse(line.rstrip("\n"))))
