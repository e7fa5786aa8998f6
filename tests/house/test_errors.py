"""Errors name settings: as keywords to callers of the library, as options in a shell."""

import pickle

import pytest

from srdd import errors
from srdd.cli.flags import as_option
from srdd.errors import ConflictError, NoEffectError, SettingError, SrddError, setting

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, SrddError)]


@pytest.mark.parametrize(
    ("error", "in_a_notebook", "in_a_shell"),
    [
        (
            SettingError("batch_size", 0, "expected 1 or more"),
            "batch_size=0: expected 1 or more",
            "--batch-size 0: expected 1 or more",
        ),
        (
            SettingError("seq_len", None, f"this model takes 64; give {setting('seq_len', 64)}"),
            "seq_len: this model takes 64; give seq_len=64",
            "--seq-len: this model takes 64; give --seq-len 64",
        ),
        (
            NoEffectError("text_column", f"without {setting('data')}"),
            "text_column has no effect without data; leave it out",
            "--text-column has no effect without --data; leave it out",
        ),
        (
            NoEffectError(["samples", "seed"], "here"),
            "samples, seed have no effect here; leave them out",
            "--samples, --seed have no effect here; leave them out",
        ),
        (
            ConflictError("worst", "above"),
            "worst and above exclude each other; give one of them",
            "--worst and --above exclude each other; give one of them",
        ),
        (SrddError("a=b of a name\n=x"), "a=b of a name\n=x", "a=b of a name\n=x"),
    ],
)
def test_a_setting_is_named_as_its_reader_knows_it(error: SrddError, in_a_notebook: str, in_a_shell: str) -> None:
    assert str(error) == in_a_notebook
    assert error.told(as_option) == in_a_shell
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (type(error), vars(error))
    assert (str(again), again.told(as_option)) == (in_a_notebook, in_a_shell)


def test_a_value_cannot_pretend_to_be_a_setting() -> None:
    error = SettingError("data", "\x02seed=1\x03", "no such file")
    assert error.told(as_option) == "--data seed=1: no such file"


def test_errors_carry_what_was_found_and_expected() -> None:
    error = SettingError("batch_size", 0, "expected 1 or more")
    assert (error.setting, error.found, error.expected) == ("batch_size", 0, "expected 1 or more")
    assert NoEffectError("seed", "here").settings == ("seed",)
    assert ConflictError("worst", "above").settings == ("worst", "above")


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [c.code for c in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(c.code.replace("-", "").islower() for c in CLASSES)
