"""Measure the candidates of this machine on one version, and choose what serves it.

    items.py        what is asked: samples, or texts drawn by length
    contenders.py   who takes part: candidates with their exports, times layouts
    workers.py      their processes
    asking.py       one at a time, or at saturation
    agreement.py    two answers compared, by task
    examine.py      a candidate's answers: like the reference, the same with batch-mates
    rounds.py       contenders timed in turn
    choose.py       from figures to a choice
    tune.py         all of it in order; what is stored is `registry.Tuning`

A contender is measured in the real worker process, with its batching: what is chosen is what is
served.
"""
