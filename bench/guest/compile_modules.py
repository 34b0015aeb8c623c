"""Writes the byte code of Python's start-up modules beside them. Run by the image's own Python while the image is made.

Arguments: the root directory, then modules relative to it. The byte code says that it is not to be checked against the
source (PEP 552), so that no file time matters.
"""
import _frozen_importlib_external
import marshal
import os
import sys

UNCHECKED_HASH = (1).to_bytes(4, "little") + bytes(8)

root = sys.argv[1]
for module in sys.argv[2:]:
    with open(f"{root}/{module}", "rb") as file:
        code = compile(file.read(), f"/{module}", "exec", dont_inherit=True)
    folder, _, name = module.rpartition("/")
    os.makedirs(f"{root}/{folder}/__pycache__", exist_ok=True)
    with open(f"{root}/{folder}/__pycache__/{name[:-3]}.cpython-311.pyc", "wb") as file:
        file.write(_frozen_importlib_external.MAGIC_NUMBER + UNCHECKED_HASH + marshal.dumps(code))
