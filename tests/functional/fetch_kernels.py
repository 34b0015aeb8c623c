#!/usr/bin/env python3
"""Fetches the kernels that the functional tests boot, where the user's cache does not have them yet."""
import json
import os
import subprocess
import sys

TENON = os.environ["TENON"]


def cached():
    listing = subprocess.run([TENON, "image", "ls", "--json"], check=True, capture_output=True, text=True).stdout
    return {kernel["flavour"] for kernel in json.loads(listing)["kernels"]}


def main():
    for flavour in ("cloud", "generic"):
        if flavour not in cached():
            print(f"fetching the {flavour} kernel", flush=True)
            if subprocess.run([TENON, "image", "fetch", "--flavour", flavour]).returncode != 0:
                return 1
    print("kernels:", ", ".join(sorted(cached())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
