"""``hubel bench``: how fast models run here, by engine, number format and batch, each in a process of its own.

What belongs here plans, starts and collects measurements. What the machine can do at most is measured in
:mod:`hubel.benchmark.hardware_peaks`; how results are shown is the command's.
"""
