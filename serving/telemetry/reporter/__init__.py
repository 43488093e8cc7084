"""The process that brings the spool to W&B; the only part of `serving` that imports wandb.

    lane ─► delivery (order, once, backoff) ─► wandb_runs (one run per stream)

It may be killed, stopped or cut off at any moment: entries leave the spool only
once W&B answers that it stores them, and a window's step in the run keeps it
from being logged twice.
"""
