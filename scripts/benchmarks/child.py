"""Runs one function of a peer in a process of its own: python -m benchmarks.child MODULE NAME JSON.

What it returns is printed as the last line, as JSON.
"""

import importlib
import json
import sys


def main():
    module, name, arguments = sys.argv[1:]
    answer = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**json.loads(arguments))
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
