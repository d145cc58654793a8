"""Parses lines of CEF on standard input with PyPI's pycef; prints what it found, a JSON object a line."""

import json
import sys

import pycef

for line in sys.stdin:
    print(json.dumps(pycef.parse(line.rstrip("\n"))))
