"""Codes of a checkpoint as a format that reports name and nothing computes."""

import pytest
import torch

from srdd import kernels
from srdd.core.formats import FORMATS, Rule, bits_per_value, is_stored, parse, parse_list, parse_measured, stored
from srdd.core.gaussian import gaussian_metrics
from srdd.core.modes import mode_title
from srdd.errors import FormatError
from srdd.models.files.packed.as_formats import fresh_format, nearest_format


@pytest.mark.parametrize("name", FORMATS)
def test_a_report_may_name_it_and_a_user_may_not(name: str) -> None:
    fmt = stored(FORMATS[name])
    assert fmt.spec == f"{name}:stored"
    assert parse_measured(fmt.spec) == fmt
    assert parse_measured(FORMATS[name].spec) == FORMATS[name]
    assert not fmt.never_clips
    assert bits_per_value(fmt.spec) == FORMATS[name].bits_per_value
    assert mode_title("weight", fmt.spec) == mode_title("weight", name)
    assert gaussian_metrics(fmt.spec) == gaussian_metrics(FORMATS[name].spec) is not None
    for parser in (parse, parse_list):
        with pytest.raises(FormatError, match="names the codes of a checkpoint"):
            parser(fmt.spec)
    with pytest.raises(FormatError, match="names the codes"):
        kernels.quant_dequant(torch.ones(32), fmt.spec)
    assert Rule.STORED not in FORMATS[name].rules


def test_several_forms_together() -> None:
    assert is_stored("fp8_channel:stored+mxfp4:stored")
    assert not is_stored("fp8_channel:amax+mxfp4:even")
    assert not is_stored("mxfp4:even")
    assert not is_stored("identity")


@pytest.mark.parametrize(
    ("form", "fresh", "nearest"),
    [
        ("MXFP4", "mxfp4", "mxfp4"),
        ("MXFP6 E3M2", "mxfp6_e3m2", "mxfp6_e3m2"),
        ("MXFP8 in E5M2", "mxfp8_e5m2", "mxfp8_e5m2"),
        ("FP8 in blocks of 128 x 128", "fp8_block", "fp8_block"),
        ("FP8 in blocks of 64 x 32", None, "fp8_block"),
        ("FP8 in blocks of 128 x 128 in E5M2", None, "fp8_block"),
        ("FP8 per row in E5M2", None, "fp8_channel"),
        ("FP8 per tensor", "fp8", "fp8"),
    ],
)
def test_forms_of_files(form: str, fresh: str | None, nearest: str) -> None:
    found = fresh_format(form)
    assert (found.name if found else None) == fresh
    assert nearest_format(form).name == nearest
