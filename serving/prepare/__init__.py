"""From a reference to a folder that a worker can load: resolve, pull, export, choose the engine.

plan.py      `Prepared`, the result, and the errors on the way
engine.py    which engine serves a folder, and why
child.py     `python -m serving.prepare.child`: does the work, where W&B and torch may live
parent.py    runs that child from the server, with a deadline
"""
