"""Measure whether the slices that a model doubts most are those in which it errs, on patients held out of training.

The errors of the five most doubtful slices are compared with those of five tumor slices drawn at random, on average:
five times the errors of a mean slice in which the model or the truth has tumor.

Usage: python tools/measure_doubt.py MODEL DATA [--kept FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np

from measure_strokes import find_held_out
from napari_braintumor.engine.anatomy import WHOLE
from napari_braintumor.engine.correcting.shifting import measure_doubt

LOOKED_AT = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--kept", type=Path, help="a folder, not of the project, in which gathered features are kept")
    options = parser.parse_args()
    ratios, possible = [], []
    for case in find_held_out(options.model, options.data, None, options.kept):
        answer, truth = case.labels > 0, case.truth[WHOLE]
        errors = (answer != truth).sum((1, 2))
        tumor = np.flatnonzero(answer.any((1, 2)) | truth.any((1, 2)))
        doubtful = np.argsort(-np.asarray(measure_doubt(case.features)), kind="stable")[:LOOKED_AT]
        ratios.append(errors[doubtful].sum() / (LOOKED_AT * errors[tumor].mean()))
        possible.append(np.sort(errors)[-LOOKED_AT:].sum() / (LOOKED_AT * errors[tumor].mean()))
        print(f"{case.name}: {ratios[-1]:.2f} times the errors of random tumor slices, of at most {possible[-1]:.2f}")
    print(f"mean {np.mean(ratios):.2f} of at most {np.mean(possible):.2f}, n = {len(ratios)}")


if __name__ == "__main__":
    main()
