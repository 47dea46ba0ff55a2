"""Pure tensor functions: statistics, advantages, objectives.

They use tensor *methods* alone, so importing them does not import torch: the tables of names
(`ADVANTAGES`, `LOSSES`, ...) can be checked by the command line in milliseconds.

Shape legend: B rows (responses), T response tokens, G groups.
"""
