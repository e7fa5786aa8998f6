"""What the commands that run a model share: its options and the text's as two values, checked and opened.

Not here: how the options are spelled (options.py), and the scan's own steps, which may need no text (scan_steps.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srdd.errors import NoEffectError

if TYPE_CHECKING:
    import typer
    from rich.console import Console
    from torch import nn

    from srdd.core.faults import Fault
    from srdd.models.adapter_base import Named
    from srdd.models.source import OpenModel
    from srdd.runs.calibration import Sequences


@dataclass(frozen=True)
class ModelOptions:
    """Which model, how it is opened, and the kernel that measures it."""

    model: str
    revision: str | None
    dtype: str
    device: str
    device_map: str | None
    trust_remote_code: bool
    backend: str
    adapter: str | None = None
    adapter_as: str | None = None

    def named(self) -> Named:
        """The base and the adapter on it. Raises SrddError as opening would."""
        from srdd.models.adapter_base import named

        return named(self.model, self.adapter, self.adapter_as, self.revision)

    def check(self) -> None:
        """What can be refused before the model is opened, which may take minutes. Raises SrddError as opening would."""
        from srdd import kernels
        from srdd.models import source

        self.named()
        kernels.choose(self.backend, device=source.check_options(self.dtype, self.device, self.device_map))

    def open(self) -> OpenModel:
        """The model, ready to run. Raises SourceError, OptionError, MissingExtraError."""
        from srdd.models import source

        return source.open_model(
            self.model,
            adapter=self.adapter,
            adapter_as=self.adapter_as,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            device_map=self.device_map,
            trust_remote_code=self.trust_remote_code,
        )


@dataclass(frozen=True)
class TextOptions:
    """Which text the model runs on, and how it is cut into sequences and batches."""

    data: Path | None
    text_column: str | None
    samples: int
    seq_len: int
    batch_size: int
    seed: int

    def check(self) -> None:
        """What can be refused before a model is opened. Raises OptionError and CalibrationError."""
        from srdd.runs import calibration

        calibration.check(
            self.data,
            text_column=self.text_column,
            samples=self.samples,
            seq_len=self.seq_len,
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def load(self, opened: OpenModel) -> Sequences:
        """The sequences for this model. Raises OptionError and CalibrationError."""
        from srdd.runs import calibration

        return calibration.load_sequences(
            self.data,
            opened.tokenizer,
            text_column=self.text_column,
            samples=self.samples,
            seq_len=self.seq_len,
            seed=self.seed,
            **_text_limits(opened.model.config),
        )


def open_with_text(out: Console, model: ModelOptions, text: TextOptions) -> tuple[OpenModel, Sequences]:
    """The model and its sequences. What can be refused without the model is refused first. Raises SrddError."""
    from rich.markup import escape

    text.check()
    model.check()
    out.print(f"Opening {escape(model.model)}")
    opened = model.open()
    sequences = text.load(opened)
    if sequences.read:
        left_out = f"; left out: {sequences.dropped}" if sequences.dropped else ""
        out.print(f"Read {escape(f'{sequences.read} from {sequences.source}{left_out}')}")
    return opened, sequences


def planted(model: nn.Module, faults: Sequence[Fault]) -> AbstractContextManager[object]:
    """The model with these faults inside a block; as it is where there are none. Raises SettingError."""
    from contextlib import nullcontext

    from srdd.models.faults import plant

    return plant(model, *faults) if faults else nullcontext()


def given(context: typer.Context) -> frozenset[str]:
    """The options that the user typed; all others hold their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


def refuse_unused(typed: Collection[str], names: Sequence[str], when: str) -> None:
    """An option without effect is a mistake worth a word, not something to ignore. Raises NoEffectError."""
    unused = [name for name in names if name in typed]
    if unused:
        raise NoEffectError(unused, when)


def _text_limits(config: Any) -> dict[str, int | None]:
    """How many token ids and positions a model has; one with a vision part has them in its text configuration."""
    names = {"vocab_size": "vocab_size", "max_seq_len": "max_position_embeddings"}
    text = getattr(config, "text_config", None)
    return {key: getattr(config, name, getattr(text, name, None)) for key, name in names.items()}
