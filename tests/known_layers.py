"""The layers of a real model, as tests of zones and multipliers take them."""

from builders import make_report, tally

from srdd.analysis.series import Series, layer_series

MEAN = 0.364
# relative error of 28 layers under mxfp4:floor, as multiples of its mean
KNOWN = [
    *(0.83, 0.89, 0.93, 0.93, 0.93, 0.98, 0.99, 1.01, 1.00, 1.02, 1.06, 1.10, 1.12, 1.11),
    *(1.15, 1.17, 1.15, 1.12, 1.09, 1.07, 1.02, 0.99, 0.96, 0.94, 0.91, 0.90, 0.79, 0.88),
]


def weights(errors: list[float], **options: object) -> Series:
    return layer_series(make_report({"weight": [[tally(e)] for e in errors]}, **options))  # type: ignore[arg-type]
