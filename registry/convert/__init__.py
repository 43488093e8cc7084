"""Pickled weights become safetensors; nothing that is pickled is ever run.

    targets.py    which file becomes which; pure
    messages.py   what parent and child say to each other
    archive.py    what can be seen of a file before it is read; no torch
    state.py      the tensors in what PyTorch read, and their names
    writer.py     tensors as one safetensors file, in flat memory; read back and compared
    child.py      `python -m registry.convert.child`: the only place that unpickles
    process.py    runs that child: limits, deadline, errors
    convert.py    a pulled version with pickles -> the same version without

The result is a snapshot of its own, addressed by the digest of the snapshot that it came
from; the bytes that were logged stay as they are.
"""
