"""Choose a method: which one stores this scan in the fewest bytes, how fast, and what does loss cost?

Run with ``python choose_a_method.py [SCAN [MEGABYTES]]``; ``pip install 'stemcodecs[compare]'`` adds others. Every
method codes a sample of whole chunks, spread over the scan: it takes some minutes. Loss is in standard deviations of
the shot noise of each count (doi:10.1107/S1600577520013326). In the shell: ``stemcodecs compare SCAN``.
"""

import sys

import numpy as np

from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines import compare
from stemcodecs_pipelines.compare.report import Group

source = sys.argv[1] if len(sys.argv) > 1 else "grains.npy"
sample = float(sys.argv[2]) * 1e6 if len(sys.argv) > 2 else 64e6
if len(sys.argv) == 1:
    np.save(source, simulate_scan("grains", (16, 16), (24, 24), mean_counts=2.0, seed=5).counts)

report = compare(source, sample=int(sample), start=print)
print(f"\n{report.source}: {' × '.join(map(str, report.shape))} of {report.dtype}")
print(f"{'':42}{'bits a value':>14}{'MB/s':>7}{'largest error':>15}{'bias':>10}")
for row in sorted(report.rows, key=lambda row: ([*Group].index(row.group), row.bits_per_value or 99)):
    if row.bits_per_value is None or row.state != "done":
        print(f"{row.name:42}  {row.state}{row.note and ': ' + row.note}")
        continue
    loss = (
        "" if row.loss is None else f"{row.loss.largest_error or 0:13.2f} σ{100 * (row.loss.total_bias or 0):+8.2f} %"
    )
    print(f"{row.name:42}{row.bits_per_value:14.3f}{row.encode_rate or 0:7.0f}{loss}")

print("\nWhat was found:", *report.recommendation.findings, sep="\n- ")
print("\nWhat to do:", *report.recommendation.advice, sep="\n- ")
